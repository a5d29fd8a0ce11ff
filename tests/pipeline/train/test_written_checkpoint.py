"""A checkpoint appears in a new folder whole, or not at all."""

import os
from pathlib import Path

import pytest

from models.checkpoints import folder as folders
from models.checkpoints import locate
from models.checkpoints.conversion import import_folder
from models.checkpoints.folder import CheckpointContent
from models.checkpoints.locate import CheckpointError
from pipeline.train.state import write_checkpoint
from shards.files.durable import MARK


@pytest.fixture(scope="module")
def content() -> CheckpointContent:
    return import_folder(locate.SHIPPED["tiny-captioner"]).content


def test_a_new_folder_is_whole_and_alone(content: CheckpointContent, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write_checkpoint(out, content)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert import_folder(out).content.tensors.keys() == content.tensors.keys()


def test_what_this_process_left_half_written_is_cleared(
    content: CheckpointContent, tmp_path: Path
) -> None:
    half = tmp_path / f".out.{os.getpid()}.partial"
    half.mkdir()
    (half / MARK).touch()
    (half / "stray").write_text("half")
    write_checkpoint(tmp_path / "out", content)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "stray").exists()


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
        write_checkpoint(out, content)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_write_leaves_nothing(
    content: CheckpointContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path / "out", content)
    assert not list(tmp_path.iterdir())
