"""Checkpoints by name: folders, shipped ones and the hub's, without torch."""

import pickle
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from models.checkpoints import locate
from models.checkpoints.locate import SHIPPED, CheckpointError, ResolvedCheckpoint, pin, resolve


def test_a_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint folder .*nowhere.*hub id"):
        resolve(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        resolve(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert resolve(tmp_path) == tmp_path.resolve()
    (tmp_path / "config.json").unlink()
    (tmp_path / "model.pth").touch()
    with pytest.raises(CheckpointError, match=r"model\.pth is a file.*checkpoint import"):
        resolve(tmp_path / "model.pth")


def test_the_hub_is_asked_for_what_is_needed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')

    def download(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        if "pytorch_model.bin" in allow_patterns:
            (tmp_path / "pytorch_model.bin").touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve("Owner/some-blip.v1", "abc") == tmp_path
    assert [entry[:2] for entry in asked] == [("Owner/some-blip.v1", "abc")] * 3
    assert asked[0][2] == ["config.json"]
    assert "pytorch_model.bin" not in asked[1][2]
    assert "model.safetensors" not in asked[2][2]
    assert not any(pattern.endswith((".py", "*")) for entry in asked for pattern in entry[2])


def test_an_unreachable_hub_is_a_checkpoint_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"'Owner/none' is no folder here.*give its folder"):
        resolve("Owner/none")
    with pytest.raises(CheckpointError, match="With capfilt come tiny-captioner and tiny-filter"):
        resolve("blip")


def test_a_pinned_name_means_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    folder = (tmp_path / "mine").resolve()
    assert pin("mine") == ResolvedCheckpoint(str(folder), None, folder)
    shipped = locate.SHIPPED["tiny-filter"]
    assert pin("tiny-filter", "v1") == ResolvedCheckpoint(str(shipped), None, shipped)


def test_a_pinned_hub_id_stays_at_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repo, commits = tmp_path / "models--Owner--blip", ("a" * 40, "b" * 40)
    (repo / "refs").mkdir(parents=True)
    for commit in commits:
        (repo / "snapshots" / commit).mkdir(parents=True)
        (repo / "snapshots" / commit / "model.safetensors").touch()
        (repo / "snapshots" / commit / "config.json").write_text("{}")
        (repo / "refs" / "main").write_text(commit)
        if commit == commits[0]:
            first = pin("Owner/blip")
    assert first == ResolvedCheckpoint("Owner/blip", commits[0], repo / "snapshots" / commits[0])
    assert resolve("Owner/blip").name == commits[1]
    assert resolve(first.name, first.revision) == first.folder


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(CheckpointError("what, where, why")))
    assert isinstance(error, CheckpointError)
    assert str(error) == "what, where, why"


def test_a_name_is_followed_without_torch() -> None:
    code = (
        "import sys; from models.checkpoints.locate import resolve\n"
        f"resolve({str(SHIPPED['tiny-filter'])!r})\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_of_another_family_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "florence2"}')
    with pytest.raises(CheckpointError, match="only BLIP is supported, found florence2"):
        resolve(tmp_path)
