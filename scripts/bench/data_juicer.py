"""Data-Juicer 1.6.1, which captions by one operator and scores by another, from JSON lines.

It has an environment of its own; `--peer-python` names its Python. It starts, and does one picture,
before the clock runs; its CPU seconds hold its start all the same. Its mapper asks for 128 tokens
whatever the recipe says: here `generate` is told to write as many as the others do.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from scripts.bench.inputs import Inputs

NAME = "Data-Juicer 1.6.1"
MARKED = "<__dj__image> {} <|__dj__eoc|>"
QUIET, NO_GPU = {"HF_HUB_OFFLINE": "1"}, {"CUDA_VISIBLE_DEVICES": ""}
LOOK = "import sys, importlib.util as u; sys.exit(u.find_spec('data_juicer') is None)"
PROGRAM = """
import functools, os, sys, transformers
kind = transformers.BlipForConditionalGeneration
plain = kind.generate
def generate(self, *arguments, **options):
    return plain(self, *arguments, **options | {{"min_new_tokens": {0}, "max_new_tokens": {0}}})
kind.generate = functools.wraps(plain)(generate)
from data_juicer.tools.process_data import main
for recipe in sys.argv[1:]:
    sys.argv = ["dj-process", "--config", recipe]
    main()
    os.write(1, b"DONE\\n")
    if not sys.stdin.readline(): break
"""


class NotInstalled(Exception):  # noqa: N818 - reads as what it is
    """A peer that is not here."""


def open_data_juicer(inputs: Inputs, share: int) -> Callable[[], int]:
    """Start it on one picture, in its own form; what is returned lets it do the others."""
    python, count = find_python(inputs.peer_python), max(1, inputs.images // share)
    work = inputs.folder / "data-juicer"
    shutil.rmtree(work, ignore_errors=True)
    _write(inputs, work, count)
    recipes = [write_recipe(work, name, inputs) for name in ("first", "others")]
    log = (work / "log").open("w+")
    process = subprocess.Popen(
        [python, "-c", PROGRAM.format(inputs.tokens), *recipes],
        env=os.environ | QUIET | ({} if inputs.device.type == "cuda" else NO_GPU),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    _wait(process, log)

    def run() -> int:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        _wait(process, log)
        process.communicate("\n")
        lines = (work / "others" / "out.jsonl").read_text(encoding="utf-8").splitlines()
        images = len({json.loads(line)["id"] for line in lines})
        if images < count:  # it goes on without what fails
            raise RuntimeError(f"of {count} pictures {images} came out")
        return images

    return run


def _wait(process: "subprocess.Popen[str]", log: TextIO) -> None:
    """Wait until it has done a recipe; it then waits for a line."""
    assert process.stdout is not None
    if not any(line.strip() == "DONE" for line in process.stdout):
        process.wait()
        log.seek(0)
        raise RuntimeError(f"it ended by {process.returncode}: {log.read()[-500:]}")


def find_python(peer_python: Path | None) -> str:
    """Return the Python of its environment, this one by default; NotInstalled without it there."""
    python = str(peer_python.absolute()) if peer_python else sys.executable
    if not shutil.which(python) or subprocess.run([python, "-c", LOOK]).returncode:
        raise NotInstalled(f"{NAME} is not installed: name its Python with --peer-python")
    return python


def _write(inputs: Inputs, work: Path, count: int) -> None:
    work.mkdir()
    for role in ("captioner", "filter"):
        shutil.copytree(inputs.folder / role, work / role)
    lines: list[str] = []
    for shard in inputs.shards[1:]:
        for image, text in inputs.pairs(shard):
            path = work / f"{len(lines):06}.jpg"
            image.save(path, quality=85)
            row = {"id": len(lines), "text": MARKED.format(text), "images": [str(path)]}
            lines.append(json.dumps(row))
    for name, part in (("first", lines[:1]), ("others", lines[:count])):
        (work / f"{name}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")


def write_recipe(work: Path, name: str, inputs: Inputs) -> Path:
    """Write a recipe of its two operators, whose captions and scores refuse nothing."""
    everywhere: dict[str, Any] = {"accelerator": inputs.device.type, "num_proc": 1, "memory": "1GB"}
    caption = {"hf_img2seq": str(work / "captioner"), "caption_num": 1, "batch_size": inputs.batch}
    score = {"hf_blip": str(work / "filter"), "min_score": 0.0, "max_score": 1.0}
    steps = {"image_captioning_mapper": caption, "image_text_matching_filter": score}
    settings: dict[str, Any] = {"open_tracer": False, "use_cache": False, "skip_op_error": True}
    settings |= {"np": 1, "dataset_path": str(work / f"{name}.jsonl")}
    settings |= {"export_path": str(work / name / "out.jsonl")}
    settings["process"] = [{step: options | everywhere} for step, options in steps.items()]
    recipe = work / f"{name}.yaml"
    recipe.write_text(json.dumps(settings))  # JSON is YAML
    return recipe
