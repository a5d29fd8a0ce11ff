"""The state of a training on disk: all that a step needs from those before it.

A folder `step-N` holds network, what the objective keeps beside it (queues), optimiser, and
`progress.json`. It appears whole or not at all. Random numbers are not stored: each step's are
seeded by its number.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.checkpoints.folder import CheckpointContent, refuse_existing, write
from shards.errors import CapfiltError
from shards.files.durable import remove_folder, whole_folder, write_whole

_NAME = re.compile(r"step-(\d{8})")
_PARTIAL = re.compile(rf"\.{_NAME.pattern}(\.old)?(\.[0-9a-f]{{8}})?\.partial")


class StateError(CapfiltError, RuntimeError):
    """A saved state that does not fit the training that should go on from it."""


@dataclass(frozen=True, slots=True)
class TrainerProgress:
    """How far a training is.

    `positions` are those of the stream, by lane; `left_out` counts by reason; `numbers` are the
    last step's; `itm` and `log_temperature` are moving averages, for the alarms, and `alarms` are
    those given.
    """

    step: int
    samples: int
    positions: dict[int, int]
    left_out: dict[str, int]
    numbers: dict[str, float] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    itm: float | None = None
    log_temperature: float | None = None


def newest_state(folder: Path) -> Path | None:
    """Find the latest saved state of a training, or None."""
    return max(_states(folder), default=None)


def save_state(
    folder: Path,
    network: nn.Module,
    beside: nn.Module | None,
    optimiser: torch.optim.Optimizer,
    progress: TrainerProgress,
    keep: int,
) -> None:
    """Write the state after a step, and remove all but the newest `keep` states."""
    final = folder / f"step-{progress.step:08d}"
    with whole_folder(final, replace=True) as aside:  # there already if the step is done again
        save_file(_plain(network.state_dict()), aside / "network.safetensors")
        queues = {} if beside is None else beside.state_dict()
        save_file(_plain(queues), aside / "beside.safetensors")
        save_file(_plain(_moments(network, optimiser)), aside / "optimiser.safetensors")
        (aside / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    for old in _states(folder)[:-keep]:
        remove_folder(old)


def load_state(
    path: Path, network: nn.Module, beside: nn.Module | None, optimiser: torch.optim.Optimizer
) -> TrainerProgress:
    """Put a saved state into network, queues and optimiser; StateError if it does not fit."""
    try:
        network.load_state_dict(load_file(path / "network.safetensors"))
        if beside is not None:
            beside.load_state_dict(load_file(path / "beside.safetensors"))
        _restore(network, optimiser, load_file(path / "optimiser.safetensors"))
        return _read_progress(path / "progress.json")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise StateError(
            f"{path} cannot be taken up: {error}. Delete it to go on from the state before it"
        ) from error


def _read_progress(path: Path) -> TrainerProgress:
    saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    saved["positions"] = {int(lane): taken for lane, taken in saved["positions"].items()}
    return TrainerProgress(**saved | {"alarms": tuple(saved.get("alarms", ()))})


def _states(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def _moments(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name AdamW's moments by their parameters."""
    return {
        f"{name}|{kind}": value
        for name, parameter in network.named_parameters()
        if parameter in optimiser.state
        for kind, value in optimiser.state[parameter].items()
    }


def _restore(
    network: nn.Module, optimiser: torch.optim.Optimizer, moments: Mapping[str, Tensor]
) -> None:
    parameters = dict(network.named_parameters())
    for key, value in moments.items():
        name, _, kind = key.rpartition("|")
        parameter = parameters[name]
        optimiser.state[parameter][kind] = value.to(parameter.device)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def remove_partial(folder: Path) -> None:
    """Remove what a kill left half-written."""
    for path in folder.glob(".step-*.partial"):
        if _PARTIAL.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Add one JSON line to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def drop_lines_after(path: Path, step: int) -> None:
    """Remove the lines of steps that a kill undid, and a last line that was cut."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except ValueError:
            break
        kept.append(line + "\n")
    write_whole(path, "".join(kept))


def write_checkpoint(folder: Path, content: CheckpointContent) -> None:
    """Write a checkpoint into a new folder; CheckpointError if anything has its name."""
    folder = folder.expanduser().absolute()
    refuse_existing(folder)
    # named by the process: a worker may outlive its driver, and the next one writes here again
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    with whole_folder(folder, aside):
        write(aside, content)
        refuse_existing(folder)
