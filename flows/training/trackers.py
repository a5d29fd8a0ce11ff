"""Where the numbers of a training go: TensorBoard, Weights & Biases, MLflow, or several.

Numbers are for people who watch; a training is worth more than its curves. So a tracker that fails
is reported once, given up when it keeps failing, and what it lost is counted when it closes.
Open trackers in one process of a training only: the one of rank 0.
"""

import importlib
import json
import logging
import re
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from shards.errors import UsageError

Kind = Literal["tensorboard", "wandb", "mlflow"]

_PROJECT = "capfilt"
_PATIENCE = 3  # failures in a row: a server that is gone costs its time-out at each step
_FLUSH_S = 30.0
_MLFLOW_REFUSES = re.compile(r"[^\w\-./ ]")

_log = logging.getLogger(__name__)


class TrackerError(UsageError):
    """A tracker that was asked for and cannot be had, and what to install or change."""


class Tracker(Protocol):
    """Takes the numbers of a training, step by step."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Note the numbers of one step."""

    def close(self) -> None:
        """Write what is still held; nothing may be logged after it."""


def open_trackers(
    kinds: Sequence[Kind], folder: str | Path, name: str, config: Mapping[str, Any]
) -> Tracker:
    """Open trackers of one training as one, each with its config; none of them ever raises.

    Raises TrackerError for an unknown kind, or one whose package is not installed.
    """
    plain = json.loads(json.dumps(dict(config), default=str))
    openers = [(kind, _find_opener(kind)) for kind in dict.fromkeys(kinds)]
    guarded = []
    for kind, opener in openers:
        try:
            guarded.append(_Guarded(kind, opener(Path(folder), name, plain)))
        except Exception as error:
            _log.warning(
                "tracker %s cannot be opened (%s: %s); the training goes on without it",
                kind,
                type(error).__name__,
                error,
            )
    return _Together(tuple(guarded))


def _find_opener(kind: str) -> Callable[[Path, str, Mapping[str, Any]], Tracker]:
    if kind not in _KINDS:
        raise TrackerError(f"no tracker is called {kind!r}; there are {', '.join(_KINDS)}")
    package, opener = _KINDS[kind]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise TrackerError(
            f"the tracker {kind} needs the package {package}, which cannot be imported ({error}): "
            f"pip install {package}, or leave {kind} out of the trackers"
        ) from error
    return opener


@dataclass(frozen=True, slots=True)
class _Together:
    trackers: tuple[Tracker, ...]

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(step, numbers)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()


@dataclass(slots=True)
class _Guarded:
    """Keeps a tracker's failures from the training."""

    kind: str
    tracker: Tracker
    _failed_in_a_row: int = 0
    _lost_steps: int = 0

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._failed_in_a_row >= _PATIENCE:
            self._lost_steps += 1
            return
        try:
            self.tracker.log(step, numbers)
        except Exception as error:  # whatever a foreign package raises
            if not self._lost_steps:
                self._warn(f"fails at step {step}", error)
            self._failed_in_a_row += 1
            self._lost_steps += 1
        else:
            self._failed_in_a_row = 0

    def close(self) -> None:
        try:
            self.tracker.close()
        except Exception as error:
            self._warn("fails to close, its last numbers may be lost", error)
        if self._lost_steps:
            _log.warning("tracker %s lost the numbers of %d steps", self.kind, self._lost_steps)

    def _warn(self, what: str, error: Exception) -> None:
        _log.warning(
            "tracker %s %s (%s: %s); the training goes on",
            self.kind,
            what,
            type(error).__name__,
            error,
        )


class _TensorBoard:
    """Writes an event file in the caller's thread.

    tensorboardX's own SummaryWriter hands events to a thread through a queue of ten: once a full
    disk has killed that thread, the eleventh event waits forever, and the training with it. So
    records are written one by one, by its RecordWriter.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        records = importlib.import_module("tensorboardX")
        self._events = importlib.import_module("tensorboardX.proto.event_pb2")
        self._summary = importlib.import_module("tensorboardX.summary")
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        # the file is named by the second; a second opening in it must not overwrite the first
        file = (
            f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{uuid.uuid4().hex[:8]}"
        )
        self._writer = records.RecordWriter(str(target / file))
        self._config = "```json\n" + json.dumps(config, indent=2) + "\n```"
        self._started = False
        self._write(file_version="brain.Event:2")
        self._flush()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if not self._started:
            self._start(step)
        for name, value in numbers.items():
            self._write(step=step, summary=self._summary.scalar(name, float(value)))
        if time.monotonic() - self._flushed_s > _FLUSH_S:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _start(self, step: int) -> None:
        # a resumed training repeats steps: TensorBoard hides what came before from here on
        session = self._events.SessionLog(status=self._events.SessionLog.START)
        self._write(step=step, session_log=session)
        self._write(step=step, summary=self._summary.text("config", self._config))
        self._started = True

    def _write(self, **content: object) -> None:
        event = self._events.Event(wall_time=time.time(), **content)
        self._writer.write(event.SerializeToString())

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed_s = time.monotonic()


class _WeightsAndBiases:
    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        wandb = importlib.import_module("wandb")
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(project=_PROJECT, name=name, dir=str(folder), config=dict(config))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """Goes where MLFLOW_TRACKING_URI says, or to MLflow's own default."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        self._mlflow = importlib.import_module("mlflow")
        self._mlflow.set_experiment(_PROJECT)
        self._mlflow.start_run(run_name=name, tags={"folder": str(folder)})
        self._mlflow.log_dict(dict(config), "config.json")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        named = {_MLFLOW_REFUSES.sub("_", name): value for name, value in numbers.items()}
        self._mlflow.log_metrics(named, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


_KINDS: dict[str, tuple[str, Callable[[Path, str, Mapping[str, Any]], Tracker]]] = {
    "tensorboard": ("tensorboardX", _TensorBoard),
    "wandb": ("wandb", _WeightsAndBiases),
    "mlflow": ("mlflow", _MLflow),
}
