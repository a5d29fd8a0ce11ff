"""`capfilt checkpoint` as a user types it."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from tests.support.driving import InProcess, Models, table

Import = Callable[[str, Path], Path]


@pytest.fixture(scope="session")
def parity(data_dir: Path) -> Path:
    return data_dir / "parity"


@pytest.fixture
def imported(capfilt: InProcess, parity: Path) -> Import:
    """Import an original file of the references by the command."""

    def run(name: str, out: Path) -> Path:
        flags = (f"--config={parity / name}.json", f"--vocab={parity / 'vocab.txt'}")
        done = capfilt.run("checkpoint", "import", parity / f"{name}.pth", out, *flags)
        assert done.returncode == 0, done.stderr
        return out

    return run


def lines(text: str) -> dict[str, str]:
    return {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in text.splitlines()}


def test_an_original_file_is_imported_and_described(
    capfilt: InProcess, parity: Path, tmp_path: Path
) -> None:
    flags = (f"--config={parity / 'itm.json'}", f"--vocab={parity / 'vocab.txt'}")
    done = capfilt.run("checkpoint", "import", parity / "itm.pth", "filter", *flags)
    told = lines(done.stdout)
    assert told["role"] == "filter  (tensors)"
    sizes = json.loads((parity / "itm.json").read_text())["config"]["vision"]
    assert told["vision_heads"] == f"{sizes['num_heads']}  (config)"
    assert told["itm_first_token"] == "enc  (as the original)"
    assert told["image_size"] == f"{sizes['img_size']}  (tensors)"
    assert "left" not in told
    again = lines(capfilt.run("checkpoint", "info", tmp_path / "filter").stdout)
    assert again["digest"] == told["digest"]
    assert again["itm_first_token"] == "enc  (config.json)"
    facts = json.loads(capfilt.run("checkpoint", "info", tmp_path / "filter", "--json").stdout)
    assert (facts["role"], facts["length_rule"]) == ("filter", "total")


@pytest.mark.parametrize("name", ["decoder", "nlvr", "pretrain", "retrieval", "vqa"])
def test_every_role_is_described(
    capfilt: InProcess, imported: Import, parity: Path, tmp_path: Path, name: str
) -> None:
    folder = imported(name, tmp_path / name)
    told = lines(capfilt.run("checkpoint", "info", folder).stdout)
    expected = {"decoder": "captioner", "retrieval": "filter"}.get(name, name)
    assert told["role"] == f"{expected}  (config.json)"
    sizes = json.loads((parity / f"{name}.json").read_text())["config"]
    assert told["vocab_size"].split()[0] == str(sizes["text"]["vocab_size"])
    assert told["vision_width"].split()[0] == str(sizes["vision"]["embed_dim"])
    assert {"digest", "image_size", "vision_width", "text_layers", "vocab_size"} <= told.keys()


def test_training_state_is_left_out_with_a_word(
    capfilt: InProcess, parity: Path, tmp_path: Path
) -> None:
    flags = (f"--config={parity / 'retrieval.json'}", f"--tokenizer={parity / 'hf/captioning'}")
    done = capfilt.run("checkpoint", "import", parity / "retrieval.pth", tmp_path / "out", *flags)
    assert done.returncode == 0
    tensors = torch.load(parity / "retrieval.pth", weights_only=True)["model"]
    trained = [key for key in tensors if not key.endswith("position_ids")]
    count = sum(
        key == "temp" or "queue" in key or key.split(".")[0].endswith("_m") for key in trained
    )
    assert f"left out {count} tensors that only training needs" in done.stdout


def test_a_pretrained_model_gives_a_captioner_and_a_filter(
    capfilt: InProcess, imported: Import, tmp_path: Path
) -> None:
    whole = imported("pretrain", tmp_path / "whole")
    kinds = {"captioner": BlipForConditionalGeneration, "filter": BlipForImageTextRetrieval}
    for role, kind in kinds.items():
        done = capfilt.run("checkpoint", "export", whole, tmp_path / role, "--role", role)
        assert done.returncode == 0
        assert kind.__name__ in done.stdout
        _, report = kind.from_pretrained(tmp_path / role, output_loading_info=True)
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys"))
        assert lines(capfilt.run("checkpoint", "info", tmp_path / role).stdout)["role"].startswith(
            role
        )
    done = capfilt.run("checkpoint", "export", whole, tmp_path / "none")
    assert done.returncode == 2
    assert "Give --role captioner or --role filter" in done.stderr
    assert not (tmp_path / "none").exists()


def test_a_hugging_face_folder_keeps_its_ways(
    capfilt: InProcess, parity: Path, tmp_path: Path
) -> None:
    source = parity / "hf/retrieval"
    assert capfilt.run("checkpoint", "import", source, tmp_path / "one").returncode == 0
    assert capfilt.run("checkpoint", "export", tmp_path / "one", tmp_path / "two").returncode == 0
    for name in ("one", "two"):
        told = json.loads(capfilt.run("checkpoint", "info", tmp_path / name, "--json").stdout)
        assert (told["itm_first_token"], told["length_rule"]) == ("cls", "generated")
        block = json.loads((tmp_path / name / "config.json").read_text())
        stored = json.loads((source / "config.json").read_text())["vision_config"]
        assert block["vision_config"]["layer_norm_eps"] == stored["layer_norm_eps"]


def test_an_imported_pair_of_models_cleans(
    capfilt: InProcess,
    imported: Import,
    flags: Callable[[Models, Path, Path], list[str]],
    toy_shards: Path,
    tmp_path: Path,
) -> None:
    models = Models(imported("decoder", tmp_path / "c"), imported("itm", tmp_path / "f"))
    shard = sorted(toy_shards.glob("*.tar"))[0]
    done = capfilt.run(*flags(models, shard, tmp_path / "run"), "--engine=local", "--direct")
    assert done.returncode == 0, done.stderr
    assert len(table(tmp_path / "run", "samples")) == 25


def test_another_image_size(capfilt: InProcess, parity: Path, tmp_path: Path) -> None:
    source = parity / "hf/captioning"
    patch = json.loads((source / "config.json").read_text())["vision_config"]["patch_size"]
    size = str(7 * patch)
    done = capfilt.run("checkpoint", "import", source, tmp_path / "big", "--image-size", size)
    assert lines(done.stdout)["image_size"] == f"{size}  (asked for)"
    told = json.loads(capfilt.run("checkpoint", "info", tmp_path / "big", "--json").stdout)
    assert told["image_size"] == 7 * patch
    odd = str(7 * patch + 1)
    done = capfilt.run("checkpoint", "import", source, tmp_path / "odd", "--image-size", odd)
    assert done.returncode == 2
    assert f"multiples of its patches of {patch}" in done.stderr


@pytest.mark.parametrize("kind", ["folder", "dead link"])
@pytest.mark.parametrize("command", ["import", "export"])
def test_what_is_there_is_not_written_over(
    capfilt: InProcess, parity: Path, tmp_path: Path, kind: str, command: str
) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    else:
        out.symlink_to(tmp_path / "elsewhere")
    done = capfilt.run("checkpoint", command, parity / "hf/captioning", out)
    assert done.returncode == 2
    assert "out is there already" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_flags_for_originals_alone(capfilt: InProcess, parity: Path, tmp_path: Path) -> None:
    vocab, source = parity / "vocab.txt", parity / "hf/captioning"
    done = capfilt.run("checkpoint", "import", source, tmp_path / "a", f"--vocab={vocab}")
    assert done.returncode == 2
    assert "for .pth files only" in done.stderr
    both = (f"--vocab={vocab}", f"--tokenizer={source}")
    done = capfilt.run("checkpoint", "import", parity / "itm.pth", tmp_path / "a", *both)
    assert done.returncode == 2
    assert "not both" in done.stderr
    assert not (tmp_path / "a").exists()


def test_heads_must_be_known(capfilt: InProcess, parity: Path, tmp_path: Path) -> None:
    vocab = f"--vocab={parity / 'vocab.txt'}"
    done = capfilt.run("checkpoint", "import", parity / "decoder.pth", tmp_path / "out", vocab)
    assert done.returncode == 2
    sizes = json.loads((parity / "decoder.json").read_text())["config"]
    width = sizes["vision"]["embed_dim"]
    for words in ("decoder.pth", f"width {width} is no multiple of 64", "--config JSON"):
        assert words in done.stderr


def test_no_vocabulary_within_reach(
    capfilt: InProcess, parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    config = f"--config={parity / 'itm.json'}"
    done = capfilt.run("checkpoint", "import", parity / "itm.pth", tmp_path / "out", config)
    assert done.returncode == 2
    assert "--vocab" in done.stderr


def test_a_pickle_with_code(capfilt: InProcess, parity: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "evil\x1b[31m.pth"
    path.write_bytes(pickle.dumps({"model": Bomb()}, protocol=2))
    vocab = f"--vocab={parity / 'vocab.txt'}"
    done = capfilt.run("checkpoint", "import", path, tmp_path / "out", vocab)
    assert done.returncode == 2
    assert "could run code" in done.stderr
    assert "\x1b" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_role_that_is_none(capfilt: InProcess, parity: Path, tmp_path: Path) -> None:
    source = parity / "hf/captioning"
    done = capfilt.run("checkpoint", "export", source, tmp_path / "out", "--role=poet")
    assert done.returncode == 2
    assert "poet" in done.stderr
