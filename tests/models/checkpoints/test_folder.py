"""Folders appear whole or not at all."""

from pathlib import Path

import pytest
import torch

from models.blip.config import ORIGINAL, Role
from models.checkpoints import folder as folders
from models.checkpoints.conversion import import_folder
from models.checkpoints.folder import CheckpointContent, write_new
from models.checkpoints.weights import CheckpointError


@pytest.fixture
def content(folders: dict[Role, Path]) -> CheckpointContent:
    return import_folder(folders["captioner"]).content


def test_a_new_folder_is_whole_and_alone(content: CheckpointContent, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write_new(out, content)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    found = import_folder(out).content
    assert found.settings == content.settings
    assert all(torch.equal(found.tensors[name], content.tensors[name]) for name in content.tensors)
    modes = {path.stat().st_mode for path in out.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dead link"])
def test_what_is_there_is_left_alone(content: CheckpointContent, tmp_path: Path, kind: str) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    if kind == "folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(elsewhere)
    if kind == "link":
        elsewhere.mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="out is there already"):
        write_new(out, content)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_write_leaves_nothing(
    content: CheckpointContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        write_new(tmp_path / "out", content)
    assert not list(tmp_path.iterdir())


def test_settings_are_written_by_name(content: CheckpointContent, tmp_path: Path) -> None:
    write_new(tmp_path / "out", content)
    block = folders.read_json(tmp_path / "out", "config.json")
    assert block["capfilt"] == content.settings.to_dict()
    assert block["capfilt"].keys() == ORIGINAL.to_dict().keys()
