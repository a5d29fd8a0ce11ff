"""Checkpoints to damage: folders of ours, and files of the original code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.blip.config import Role


@pytest.fixture(scope="session")
def sizes_of(parity: Path) -> Callable[[str], dict[str, Any]]:
    """Read what a reference says of its sizes and tokenizer."""

    def read(name: str) -> dict[str, Any]:
        return json.loads((parity / f"{name}.json").read_text())["config"]

    return read


@pytest.fixture
def damaged(parity: Path, tmp_path: Path) -> Callable[..., Path]:
    """Change the tensors of an original file, by a value or a function; None takes one away."""

    def change(name: str, **changes: Any) -> Path:
        path = tmp_path / "model.pth"
        tensors = torch.load(parity / f"{name}.pth", weights_only=True)["model"]
        for key, value in changes.items():
            key = key.replace("__", ".")
            tensors[key] = value(tensors[key]) if callable(value) else value
        torch.save({"model": {k: v for k, v in tensors.items() if v is not None}}, path)
        return path

    return change


@pytest.fixture
def copy(folders: dict[Role, Path], tmp_path: Path) -> Path:
    """A captioner's folder to damage."""
    return Path(shutil.copytree(folders["captioner"], tmp_path / "copy"))
