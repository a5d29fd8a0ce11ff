"""Folders of guest models: found, checked and summed up before any weights are in memory.

Nothing that a folder holds is run: code that comes along is refused, and so are pickled weights.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import safe_open
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

from models.bounded_file import SETTINGS_BYTES, fault_of, open_plain, read_bounded
from models.checkpoints.locate import (
    CheckpointError,
    ResolvedCheckpoint,
    download,
    find_here,
)

if TYPE_CHECKING:  # seconds to import
    from transformers import PreTrainedModel

# all that transformers reads of a folder, in it and beside the tokenizer of a second network
_ENDINGS = (".json", ".jinja", ".txt", ".model", ".safetensors")
_SECOND_TOKENIZER = "qformer_tokenizer"
_WANTED = [
    "*.json",
    "*.jinja",
    "*.txt",
    "*.model",
    "model.safetensors",
    "model-*.safetensors",
    f"{_SECOND_TOKENIZER}/*",
]
_SHOWN = 300  # characters of what transformers says


def pin(name: str, revision: str | None = None) -> ResolvedCheckpoint:
    """Find a folder once for a whole run, and a name that leads to the same content elsewhere."""
    folder = locate(name, revision)
    if find_here(name, revision) is not None:
        return ResolvedCheckpoint(str(folder), None, folder)
    return ResolvedCheckpoint(name, folder.name, folder)  # the hub's cache names commits


def locate(name: str, revision: str | None = None) -> Path:
    """Find the folder of a local path or of a hub id, which is downloaded if it is not here."""
    here = find_here(name, revision)
    folder = here if here is not None else download(name, revision, _WANTED)
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} holds no .safetensors; other files of weights may run code, and are not "
            "opened. Give a folder or a revision with safetensors"
        )
    return folder


def read_config(folder: Path) -> PreTrainedConfig:
    """Read what a folder says of its network; CheckpointError if transformers has no such class."""
    with as_checkpoint_errors(folder):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load_network(auto: Any, folder: Path, **options: Any) -> "PreTrainedModel":  # noqa: ANN401 - an Auto class
    """Load a network by one of transformers' Auto classes; all of its weights must be there."""
    logging.disable_progress_bar()  # a worker has no terminal
    with as_checkpoint_errors(folder):
        network, report = auto.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the weights of a {type(network).__name__}, "
            f"{missing[0]} among them: they would be random. Give a folder that was saved from one"
        )
    return network.requires_grad_(False).eval()


def count_parameters(folder: Path) -> int:
    """Count the numbers of a folder's weights, from the heads of their files."""
    total = 0
    with as_checkpoint_errors(folder):
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                shapes = (file.get_slice(name).get_shape() for name in file.keys())  # noqa: SIM118 - no dict
                total += sum(math.prod(shape) for shape in shapes)
    return total


def digest(folder: Path) -> str:
    """Sum up all that changes what a folder's model computes: SHA-256 in hex."""
    total = hashlib.sha256()
    for path in sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
        with open_plain(path) as file:
            content = hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()


@contextmanager
def as_checkpoint_errors(folder: Path) -> Iterator[None]:
    """Raise what transformers says of a folder as a CheckpointError, with what to do."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # anything may come: KeyError of a class's name, TypeError, ...
        said = " ".join(str(error).split())[:_SHOWN]
        raise CheckpointError(
            f"{folder} cannot be used: {_own_code(folder)}{type(error).__name__}: {said}"
        ) from error


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """Read an object from a file that a folder may have; empty where it has none."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        block = json.loads(read_bounded(path, SETTINGS_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(fault_of(path, "cannot be read", error)) from error
    return block if isinstance(block, dict) else {}


def _own_code(folder: Path) -> str:
    """Say so where a folder brings its own code, the usual reason why none of ours opens it."""
    if "auto_map" not in read_settings(folder, "config.json"):
        return ""
    return (
        "it brings its own code (trust_remote_code), which is never run here; look for a "
        "conversion to transformers' own classes, as florence-community's of Florence-2. "
    )


def _files(folder: Path) -> Iterator[Path]:
    for inner in (folder, folder / _SECOND_TOKENIZER):
        if inner.is_dir():
            yield from (path for path in inner.iterdir() if path.name.endswith(_ENDINGS))
