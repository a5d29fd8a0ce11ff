"""What several tests of checkpoints damage."""

import shutil
from pathlib import Path

import pytest

from models.blip.config import Role


@pytest.fixture
def copy(folders: dict[Role, Path], tmp_path: Path) -> Path:
    """A captioner's folder to damage."""
    return Path(shutil.copytree(folders["captioner"], tmp_path / "copy"))
