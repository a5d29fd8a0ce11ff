"""Finding and reading the tensors of a checkpoint, and checking them against a network.

Nothing here runs code from a file: safetensors holds none, and pickles are read by torch's
restricted loader.
"""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_SETTINGS = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "vocab.txt",
]
# files of weights, best first: alone, or the index of several
_WEIGHTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_HARMLESS = re.compile(r"(^|\.)(position_ids|logit_scale)$")
_HEAD = "text_decoder.cls.predictions"
# the second name of a tied tensor -> the first; files may hold either or both
_ALIASES = {
    f"{_HEAD}.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    f"{_HEAD}.decoder.bias": f"{_HEAD}.bias",
}
_MOST_LISTED = 20


class CheckpointError(RuntimeError):
    """A checkpoint is missing or cannot be used; the message says where, why and what to do."""


def resolve(name: str | Path, revision: str | None = None) -> Path:
    """Find the folder of a local path or hub id, downloading only what is needed.

    `revision`: branch, tag or commit of a hub id.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(name)):
        raise CheckpointError(
            f"there is no checkpoint folder {path.absolute()}. "
            "Give an existing folder or a Hugging Face hub id such as OWNER/NAME."
        )
    for single, index in _WEIGHTS:
        stem, ending = single.split(".")
        wanted = [*_SETTINGS, single, index, f"{stem}-*.{ending}"]
        folder = _download(str(name), revision, wanted)
        if (folder / single).is_file() or (folder / index).is_file():
            return folder
    raise CheckpointError(f"the hub's {name} holds no model.safetensors and no pytorch_model.bin")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder, from one file or from those that an index names."""
    for single, index in _WEIGHTS:
        if (folder / single).is_file():
            return _read_file(folder / single)
        if (folder / index).is_file():
            tensors: dict[str, Tensor] = {}
            for name in _indexed(folder / index):
                tensors |= _read_file(folder / name)
            return tensors
    raise CheckpointError(
        f"{folder} holds no weights; expected one of {[names[0] for names in _WEIGHTS]}"
    )


def arrange(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], folder: Path
) -> dict[str, Tensor]:
    """Keep the tensors that a network of these shapes has; one error lists all that do not fit."""
    kept = {name: tensor for name, tensor in tensors.items() if not _HARMLESS.search(name)}
    problems = []
    for second, first in _ALIASES.items():
        if second in kept and first in shapes:
            tensor = kept.pop(second)
            if not torch.equal(kept.setdefault(first, tensor), tensor):
                problems.append(f"{second} differs from {first}, to which it is tied")
    problems += [f"missing {name}" for name in shapes if name not in kept]
    problems += [f"unexpected {name}" for name in kept if name not in shapes]
    for name, shape in shapes.items():
        found = kept.get(name)
        if found is not None and tuple(found.shape) != shape:
            problems.append(f"{name} has shape {tuple(found.shape)}; expected {shape}")
        elif found is not None and not found.is_floating_point():
            problems.append(f"{name} holds {found.dtype}; expected floating point")
    if problems:
        listed = "\n  ".join(problems[:_MOST_LISTED])
        more = f"\n  and {len(problems) - _MOST_LISTED} more" if problems[_MOST_LISTED:] else ""
        raise CheckpointError(
            f"the tensors in {folder} do not fit its config.json ({len(problems)} problems):\n"
            f"  {listed}{more}\nCheck that both come from the same checkpoint."
        )
    return {name: kept[name] for name in shapes}


def _download(name: str, revision: str | None, wanted: list[str]) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (OSError, ValueError) as error:  # the hub's own errors are among these
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(
            f"{name!r} is no folder here, and the Hugging Face hub did not give it "
            f"(revision {revision or 'main'}): {reason}. Check the name and the network, or "
            "download the checkpoint and give its folder."
        ) from error


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and was not loaded: it could run code. "
            "Give a checkpoint with model.safetensors."
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{path} is no table of tensors, as a state dict is")
    return loaded


def _indexed(path: Path) -> list[str]:
    """List the files that an index names, all of them beside it."""
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read as an index of weights: {error!r}") from error
    if outside:
        raise CheckpointError(f"{path} names files outside its folder: {outside}")
    return names
