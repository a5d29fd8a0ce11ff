"""A checkpoint of a stranger is refused in seconds, in little memory, and in plain words."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.blip.config import Role
from models.checkpoints import checkpoint
from models.checkpoints.locate import CheckpointError
from tests.models.checkpoints.test_weight_bounds import DOUBLED, header, many_names, zipped

SECONDS, MEBIBYTES = 5, 500

# each folder in a process of its own, which starts with all imported
RUN = """
import json, os, sys, time
from pathlib import Path
from models.checkpoints import checkpoint
from models.checkpoints.locate import CheckpointError
checkpoint.info(Path(sys.argv[1]))
for name in sys.argv[1:]:
    answer, question = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            message = checkpoint.info(Path(name)).digest
        except CheckpointError as error:
            message = str(error)
        os.write(question, message.encode()[:4000])
        os._exit(0)
    os.close(question)
    usage = os.wait4(child, 0)[2]
    message = os.read(answer, 4000).decode()
    seconds = usage.ru_utime + usage.ru_stime
    print(json.dumps([message, seconds, usage.ru_maxrss / 1024]), flush=True)
"""


def _replaced(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def _edited(part: str | None, **changes: Any) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        block = json.loads(path.read_text())
        (block[part] if part else block).update(changes)
        path.write_text(json.dumps(block))

    return edit


def _linked(name: str) -> Callable[[Path], Any]:
    def link(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")

    return link


def _pipe(name: str) -> Callable[[Path], Any]:
    def make(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def _sparse(name: str, start: bytes, size_bytes: int) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.write(start)
            file.truncate(size_bytes)

    return write


def _pickled(content: bytes) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(content)

    return write


def _tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    block = json.loads(path.read_text())
    pattern = {"Regex": "(((a{1000}){1000}){1000}|(a|a)*)*b"}
    block["pre_tokenizer"] = {
        "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False
    }  # fmt: skip
    path.write_text(json.dumps(block))


def _index(content: bytes) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_bytes(content)

    return write


_BRACKETS = b"[" * 200_000
_TERABYTE = 1 << 40
_HUGE = json.dumps(
    {"x": {"dtype": "F32", "shape": [_TERABYTE // 4], "data_offsets": [0, _TERABYTE]}}
).encode()

HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "names": (_replaced("model.safetensors", header(many_names())), "20001 tensors"),
    "many names": (
        _replaced("model.safetensors", header(b'{"' + b"a" * 90_000_000 + b'":0}')),
        "its header has",
    ),
    "terabyte of header": (_replaced("model.safetensors", header(b"", _TERABYTE)), "its header"),
    "terabyte of weights": (
        _sparse("model.safetensors", header(_HUGE), 8 + len(_HUGE) + _TERABYTE),
        "fills at most",
    ),
    "marks": (_pickled(b"\x80\x02" + b"(" * 5_000_000), "steps"),
    "marks in a zip": (_pickled(zipped(b"\x80\x02" + b"(" * 5_000_000)), "steps"),
    "doubled": (_pickled(zipped(DOUBLED + b"}h\x3bK\x01s.")), "far more than it holds"),
    "weights are /dev/zero": (_linked("model.safetensors"), "no plain file"),
    "config is /dev/zero": (_linked("config.json"), "no plain file"),
    "tokenizer is /dev/zero": (_linked("tokenizer.json"), "no plain file"),
    "processor is /dev/zero": (_linked("preprocessor_config.json"), "no plain file"),
    "weights are a pipe": (_pipe("model.safetensors"), "no plain file"),
    "config is a pipe": (_pipe("config.json"), "no plain file"),
    "tokenizer is a pipe": (_pipe("tokenizer.json"), "no plain file"),
    "processor is a pipe": (_pipe("preprocessor_config.json"), "no plain file"),
    "large config": (_sparse("config.json", b"{", 8 << 30), "more than 4 MiB"),
    "large tokenizer": (_sparse("tokenizer.json", b"{", 8 << 30), "more than 16 MiB"),
    "regular expression": (_tokenizer, "its pre_tokenizer is 'Split'"),
    "brackets": (_replaced("config.json", _BRACKETS), "cannot be read"),
    "brackets in tokenizer": (_replaced("tokenizer.json", _BRACKETS), "no readable tokenizer"),
    "brackets in processor": (_replaced("preprocessor_config.json", _BRACKETS), "cannot be read"),
    "brackets in header": (_replaced("model.safetensors", header(_BRACKETS)), "cannot be read"),
    "brackets in index": (_index(_BRACKETS), "index of weights"),
    "lists": (_replaced("config.json", b"[" + b"[]," * 1_390_000 + b"[]]"), "holds a list"),
    "names of files": (
        _index(json.dumps({"weight_map": {f"t{n}": f"{n}" for n in range(50_000)}}).encode()),
        "names 50000 files",
    ),
    "eps is not a number": (_edited("text_config", layer_norm_eps=float("nan")), "layer_norm_eps"),
    "width": (_edited("vision_config", hidden_size=1 << 40), "hidden_size is 1099511627776"),
    "words": (_edited("text_config", vocab_size=10**12), "vocab_size is 1000000000000"),
    "labels": (_edited(None, num_labels=10**9), ""),
    "labels of a part": (_edited("text_config", num_labels=10**9), ""),
    "deviation is not a number": (_edited(None, initializer_range=float("nan")), ""),
    "whole numbers that are true": (
        _edited("text_config", num_hidden_layers=True),
        "num_hidden_layers",
    ),
    "dropout": (_edited("text_config", hidden_dropout_prob=float("inf")), "hidden_dropout_prob"),
}
HARMLESS = ("labels", "labels of a part", "deviation is not a number")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_hostile_checkpoint_costs_little(folders: dict[Role, Path], tmp_path: Path) -> None:
    paths = []
    for name, (damage, _) in HOSTILE.items():
        paths.append(Path(shutil.copytree(folders["captioner"], tmp_path / name)))
        damage(paths[-1])
    plain = folders["captioner"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(plain), *map(str, paths)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (100, 100)),
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    digest, _, usual = json.loads(done.stdout.splitlines()[0])
    answers = map(json.loads, done.stdout.splitlines()[1:])
    for (name, (_, wanted)), (message, seconds, mebibytes) in zip(
        HOSTILE.items(), answers, strict=True
    ):
        if name in HARMLESS:
            assert message == digest, name
        else:
            assert str(tmp_path / name) in message, (name, message)
            assert wanted in message, (name, message)
            assert len(message.splitlines()) == 1, (name, message)
        assert seconds < SECONDS, (name, seconds)
        assert mebibytes - usual < MEBIBYTES, (name, mebibytes, usual)


def test_queues_have_a_size(copy: Path) -> None:
    _sparse("training.safetensors", header(_HUGE), 8 + len(_HUGE) + _TERABYTE)(copy)
    with pytest.raises(CheckpointError, match=r"training\.safetensors has more than 4 GiB"):
        checkpoint.load(copy, "captioner")
