"""What runs inside each Ray actor: checks first, then the worker of a job."""

import logging
import os
import pickle
import platform
from collections import deque
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge

from flows.engines.job import Grant, ShardJob
from flows.engines.start_checks import Requirements, check_machine

LINES_KEPT = 100  # of the log, between two questions of the driver


@dataclass(frozen=True, slots=True)
class Started:
    """Where an actor works."""

    host: str
    device: str
    log: str  # folder of Ray's logs on that machine, where all that it writes lies
    warm_up_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Samples and bytes done of the shard at work, and the warnings since the last question."""

    counts: tuple[int, int]
    lines: tuple[str, ...] = ()


class PoolActor:
    """One Ray actor; its constructor does nothing, so that it answers before its models load."""

    def __init__(self) -> None:
        self._worker: Any = None
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)

    def start(self, needed: Requirements, job: bytes, grant: Grant, threads: int) -> Started:
        """Check this machine, and open the worker; raises MachineUnfit.

        The job comes pickled: what it imports must be ours, and finds the environment as it is to
        be, since some libraries read theirs when they are imported.
        """
        check_machine(needed)
        _keep_warnings(self._lines)
        opened: ShardJob[Any, Any] = pickle.loads(job)  # noqa: S301 - from our own driver
        import torch

        torch.set_num_threads(threads)
        self._worker = opened.open(grant)
        self._meters = _Meters(grant.worker or "", self._worker.device)
        logs = ray._private.worker.global_worker.node.get_logs_dir_path()
        log = f"{logs} (pid {os.getpid()})"
        warm_up_s = getattr(self._worker, "warm_up_s", 0.0)  # of workers that compile
        return Started(platform.node(), self._worker.device, log, warm_up_s)

    @ray.method(concurrency_group="report")
    def report(self) -> Progress:
        """Tell how far the shard at work is; answers while models load, too."""
        if self._worker is None:
            return Progress((0, 0))
        counts = self._worker.counts
        self._meters.note(self._worker.samples, counts[0])
        lines = tuple(self._lines.popleft() for _ in range(len(self._lines)))
        return Progress(counts, lines)

    @ray.method(concurrency_group="report")
    def expect(self, shard: Any) -> None:  # noqa: ANN401 - as the job has it
        """Hear which shard is next; None takes that back."""
        self._worker.expect(shard)

    def process(self, shard: Any) -> Any:  # noqa: ANN401 - as the job has it
        """Do one shard."""
        return self._worker.process(shard)


class _Meters:
    """What Ray's dashboard and its metrics endpoints show of a worker."""

    def __init__(self, worker: str, device: str) -> None:
        tags = {"worker": worker, "device": device}
        self._samples = Counter("capfilt_samples", "samples done", tag_keys=tuple(tags))
        self._at_work = Gauge("capfilt_shard_samples", "of the shard at work", tuple(tags))
        self._samples.set_default_tags(tags)
        self._at_work.set_default_tags(tags)
        self._before = 0

    def note(self, samples: int, at_work: int) -> None:
        """Note all samples so far, and those of the shard at work."""
        if samples > self._before:
            self._samples.inc(samples - self._before)
        self._at_work.set(at_work)
        self._before = samples


class _Keeper(logging.Handler):
    """Keeps warnings until the driver asks for them; Ray's own logs hold all."""

    def __init__(self, lines: deque[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self._lines.append(f"{record.name}: {record.getMessage()}")


def _keep_warnings(lines: deque[str]) -> None:
    for package in ("shards", "models", "pipeline", "flows"):
        logging.getLogger(package).addHandler(_Keeper(lines))
