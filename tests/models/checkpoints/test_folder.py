"""The files of a checkpoint folder: all readable by those who may read one, settings by name."""

from pathlib import Path

import pytest
import torch

from models.blip.config import ORIGINAL, Role
from models.checkpoints.conversion import import_folder
from models.checkpoints.folder import CheckpointContent, read_json, write


@pytest.fixture
def content(folders: dict[Role, Path]) -> CheckpointContent:
    return import_folder(folders["captioner"]).content


def test_what_is_written_is_read_again(content: CheckpointContent, tmp_path: Path) -> None:
    write(tmp_path / "out", content)
    read = import_folder(tmp_path / "out").content
    assert read.settings == content.settings
    assert all(torch.equal(read.tensors[name], content.tensors[name]) for name in content.tensors)
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1


def test_settings_are_written_by_name(content: CheckpointContent, tmp_path: Path) -> None:
    write(tmp_path / "out", content)
    block = read_json(tmp_path / "out", "config.json")
    assert block["capfilt"] == content.settings.to_dict()
    assert block["capfilt"].keys() == ORIGINAL.to_dict().keys()
