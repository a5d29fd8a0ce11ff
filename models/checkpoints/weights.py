"""Reading the tensors of a checkpoint, and checking them against a network.

Nothing here runs code from a file: safetensors holds none, and pickles are read by torch's
restricted loader.
"""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.bounded_file import SETTINGS_BYTES, fault_of, read_bounded
from models.checkpoints.locate import WEIGHT_FILES, CheckpointError
from models.checkpoints.prefix import common_prefix
from models.checkpoints.weight_bounds import MOST_TENSORS, check_pickle, check_safetensors

_HARMLESS = re.compile(r"(^|\.)(position_ids|logit_scale)$")
_HEAD = "text_decoder.cls.predictions"
# the second name of a tied tensor -> the first; files may hold either or both
ALIASES = {
    f"{_HEAD}.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    f"{_HEAD}.decoder.bias": f"{_HEAD}.bias",
}
_WEIGHT_ENDINGS = {".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".h5", ".msgpack", ".gguf"}
_MOST_LISTED, _MOST_FILES = 20, 1000


def read_tensors(folder: Path, most_bytes: int | None = None) -> dict[str, Tensor]:
    """Read all tensors of a folder, from one file or from those that an index names.

    `most_bytes`: what its network can fill, and what only needs that many is read.
    """
    tensors: dict[str, Tensor] = {}
    paths = _files(folder)
    size_bytes = sum(path.stat().st_size for path in paths)
    if most_bytes is not None and size_bytes > most_bytes:
        raise CheckpointError(
            f"{folder} holds {size_bytes:,} bytes of weights; a network of the sizes in its "
            f"config.json fills at most {most_bytes:,}. Check that both come from the same "
            "checkpoint."
        )
    for path in paths:
        tensors |= read_file(path)
        if len(tensors) > MOST_TENSORS:
            raise CheckpointError(f"{folder} holds more than {MOST_TENSORS} tensors")
    return tensors


def _files(folder: Path) -> list[Path]:
    for single, index in WEIGHT_FILES:
        if (folder / single).exists():
            return [folder / single]
        if (folder / index).exists():
            return [folder / name for name in _indexed(folder / index)]
    others = sorted(p.name for p in folder.iterdir() if p.suffix in _WEIGHT_ENDINGS)
    there = f"; there are {', '.join(others[:_MOST_LISTED])}" if others else ""
    wanted = [name for names in WEIGHT_FILES for name in names]
    dead = [path for name in wanted if (path := folder / name).is_symlink()]
    there += "".join(f"; {path} links to {path.readlink()}, and nothing is there" for path in dead)
    raise CheckpointError(f"{folder} holds no weights; expected one of {wanted}{there}")


def read_pickle(path: Path) -> object:
    """Read a pickle of tensors and plain values by torch's restricted loader; nothing is run."""
    try:
        mapped = check_pickle(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors, and was not loaded: it could run code. "
            "Give a file of tensors alone, best a model.safetensors."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # what its bounds refuse, above all
        raise CheckpointError(fault_of(path, "cannot be read as weights", error)) from error
    except Exception as error:  # a damaged pickle raises anything: KeyError, IndexError, ...
        raise CheckpointError(f"{path} cannot be read as weights: {error!r}") from error


def check_table(loaded: object, path: Path) -> dict[str, Tensor]:
    """Refuse all but a table of plain tensors, none of which is larger than what the file holds."""
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise CheckpointError(f"{path} is no table of tensors, as a state dict is")
    tensors: dict[str, Tensor] = {name: value.detach() for name, value in loaded.items()}
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        # a view with steps of 0 claims any size from a few bytes
        if not plain or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.itemsize:
            raise CheckpointError(
                f"{path}: {name} is no plain tensor of shape {tuple(tensor.shape)}"
            )
    return tensors


def arrange(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    where: Path,
    *,
    ties: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """Keep the tensors that a network of these shapes has; one error lists all that do not fit.

    `ties`: second names of shared tensors to their first ones, which alone are kept; files may hold
    either or both. What stands before all names, such as `module.`, is taken away.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not _HARMLESS.search(name)}
    known = {*shapes, *ALIASES, *(ties or {})}
    start = len(common_prefix(kept, known.__contains__))
    kept = {name[start:]: tensor for name, tensor in kept.items()}
    shapes = {name: shape for name, shape in shapes.items() if name not in (ties or {})}
    problems = []
    for second, first in [*ALIASES.items(), *(ties or {}).items()]:
        if second in kept and first in {**shapes, **(ties or {})}:
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
            f"the tensors in {where} do not fit its settings (problems: {len(problems)}):\n"
            f"  {listed}{more}\nCheck that both come from the same checkpoint."
        )
    return {name: kept[name] for name in shapes}


def read_file(path: Path) -> dict[str, Tensor]:
    """Read the tensors of one file, safetensors or pickle."""
    if path.suffix != ".safetensors":
        return check_table(read_pickle(path), path)
    try:
        check_safetensors(path)
        return load_file(path)
    except (RecursionError, SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(fault_of(path, "cannot be read as weights", error)) from error


def _indexed(path: Path) -> list[str]:
    """List the files that an index names, all of them beside it."""
    try:
        block = json.loads(read_bounded(path, SETTINGS_BYTES))
        names = sorted(set(block["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as an index of weights: {error!r}") from error
    if len(names) > _MOST_FILES:
        raise CheckpointError(f"{path} names {len(names)} files; expected at most {_MOST_FILES}")
    if outside:
        raise CheckpointError(f"{path} names files outside its folder: {outside}")
    missing = [name for name in names if not (path.parent / name).exists()]
    if missing:
        raise CheckpointError(
            f"{path} names {len(names)} files of weights; {len(missing)} of them are not there: "
            f"{', '.join(missing[:_MOST_LISTED])}. Fetch or copy them, too."
        )
    return names
