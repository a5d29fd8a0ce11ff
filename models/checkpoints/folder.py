"""The files of a checkpoint folder, read and written.

A captioner, filter or VQA folder is a plain Hugging Face one. A pre-training folder has one file
more, `training.safetensors`, with the queues.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import BlipConfig

from models.blip.config import ARCHITECTURES, Role, Settings
from models.blip.preprocess import Preprocess
from models.blip.tokenizer import WordPiece
from models.bounded_file import SETTINGS_BYTES, fault_of, read_bounded
from models.checkpoints.local_folder import inner_checkpoints
from models.checkpoints.locate import CheckpointError

TRAINING = "training.safetensors"


@dataclass(frozen=True, slots=True)
class CheckpointContent:
    """All that a folder holds; `training` is what only training needs beside the network."""

    role: Role
    config: BlipConfig
    settings: Settings
    preprocess: Preprocess
    tokenizer: WordPiece
    tensors: Mapping[str, Tensor]
    training: Mapping[str, Tensor] = field(default_factory=dict)


def write(folder: Path, content: CheckpointContent) -> None:
    """Write a checkpoint into a folder, over what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(folder / "model.safetensors", content.tensors)
    if content.training:
        _write_tensors(folder / TRAINING, content.training)
    block = content.config.to_dict() | {
        "architectures": [ARCHITECTURES[content.role]],
        "tie_word_embeddings": True,
        "capfilt": content.settings.to_dict(),
    }
    write_json(folder / "config.json", block)
    write_json(folder / "preprocessor_config.json", content.preprocess.to_dict())
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    (folder / "tokenizer.json").write_text(content.tokenizer.to_json(), encoding="utf-8")
    for path in folder.glob("*.safetensors"):  # its library lets nobody else read them
        shutil.copymode(folder / "config.json", path)


def refuse_existing(folder: Path) -> None:
    """Raise CheckpointError if anything has this name, a dead link among it."""
    if os.path.lexists(folder):
        raise CheckpointError(f"{folder} is there already. Give a folder that is not.")


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read an object from a folder's file; CheckpointError if it cannot be."""
    path = folder / name
    try:
        block = json.loads(read_bounded(path, SETTINGS_BYTES))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} has no {name}. Give a Hugging Face BLIP folder or hub id."
            + inner_checkpoints(folder)
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(fault_of(path, "cannot be read", error)) from error
    if not isinstance(block, dict):
        raise CheckpointError(f"{path} holds a {type(block).__name__}; expected an object")
    return block


def read_processor(folder: Path) -> tuple[dict[str, Any], str]:
    """Find the image processor's settings and the name of their file."""
    if (folder / "preprocessor_config.json").exists():
        return read_json(folder, "preprocessor_config.json"), "preprocessor_config.json"
    if (folder / "processor_config.json").exists():
        block = read_json(folder, "processor_config.json").get("image_processor", {})
        return block, "processor_config.json"
    return {}, "default"


def write_json(path: Path, block: Mapping[str, Any]) -> None:
    """Write an object for people and machines."""
    path.write_text(json.dumps(block, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, path, metadata={"format": "pt"})
    except SafetensorError as error:  # the disk is full, above all
        raise OSError(f"{path} cannot be written: {error}") from error
