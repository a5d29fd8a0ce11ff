"""The pool: runs a schedule of shards on the workers of a cluster, whatever that is made of."""

import secrets
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from flows.engines.engine import ProgressListener, ShardResult
from flows.engines.schedule import Schedule
from shards.inputs.listing import InputShard
from shards.run.attempt import Ending, end_attempts_of
from shards.run.run import Run

POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class TaskDone:
    """A worker's shard at work has come to a result."""

    worker: str
    result: ShardResult


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker that is no more: it died, was ended, or lost its attempt."""

    worker: str
    why: str
    ready: bool  # whether its models had been loaded


class Cluster(Protocol):
    """Runs workers by name; each does its shards one after the other, in the order submitted."""

    def capacity(self, shards: int) -> int:
        """Return how many workers to run for so many shards, at least one."""

    def start(self, worker: str) -> None:
        """Start a worker; what it is submitted waits until it is ready."""

    def submit(self, worker: str, shard: InputShard) -> None:
        """Queue a shard at a worker, behind those that it has."""

    def wait(self, timeout_s: float) -> Sequence[TaskDone | WorkerLost]:
        """Return what has happened to shards at work, or nothing after a time.

        Raises what a worker raised that is no single shard's fault.
        """

    def progress(self, worker: str) -> tuple[int, int] | None:
        """Return samples and bytes done of a worker's shard at work, or None for no answer yet."""

    def end(self, worker: str) -> None:
        """End a worker at once; a shard that it is at comes back as WorkerLost."""

    def check(self) -> None:
        """Raise EngineError where no machine is left to run a worker on."""


class Pool:
    """Works on shards with as many workers as a cluster has room for; a lost one is replaced."""

    def __init__(
        self, cluster: Cluster, run: Run, stall_timeout_s: float, stop: threading.Event
    ) -> None:
        """Make a pool over a cluster, which ends with SystemExit soon after `stop` is set."""
        self._cluster, self._run, self._stop = cluster, run, stop
        self._stall_timeout_s = stall_timeout_s
        self._schedule = Schedule((), stall_timeout_s)

    def run(self, shards: Sequence[InputShard], watch: ProgressListener) -> Iterator[ShardResult]:
        """Clean all shards; see `Engine.run`."""
        self._schedule = schedule = Schedule(shards, self._stall_timeout_s)
        size = self._cluster.capacity(len(shards))
        while schedule.unfinished:
            while len(schedule.workers) < size:
                self._start_worker()
            for worker, shard in schedule.assign():
                self._cluster.submit(worker, shard)
            for event in self._cluster.wait(POLL_S):
                yield from self._settle(event)
            self._look_after_workers(watch)
            if self._stop.is_set():
                raise SystemExit(128 + signal.SIGTERM)

    def release(self) -> None:
        """Record that the shards still held are released, to be done by a later run."""
        for name, worker in self._schedule.workers.items():
            with suppress(OSError):  # on a full disk, say; such attempts count as lost
                self._record(name, worker.shards, Ending.RELEASED)

    def _start_worker(self) -> None:
        name = secrets.token_hex(8)  # in the records of its attempts
        self._cluster.start(name)
        self._schedule.add(name)

    def _settle(self, event: TaskDone | WorkerLost) -> Iterator[ShardResult]:
        """Take note of an event; yields the result of a shard that is through.

        The record of its attempts leads a shard to safe mode, and to quarantine; one whose attempts
        cannot even be recorded fails here.
        """
        if isinstance(event, TaskDone):
            self._schedule.complete(event.worker)
            yield event.result
            return
        loss = self._schedule.lose(event.worker, event.why, event.ready)
        self._record(event.worker, loss.at_work, Ending.DIED, event.why)
        self._record(event.worker, loss.waiting, Ending.RELEASED)
        if loss.failure:
            yield loss.failure

    def _look_after_workers(self, watch: ProgressListener) -> None:
        """Ask each worker how far it is; end those that have finished no sample for too long."""
        for name in self._schedule.workers:
            counts = self._cluster.progress(name)
            if counts is not None:
                self._schedule.progress(name, counts)
        for name in self._schedule.stalled():
            self._cluster.end(name)
        self._cluster.check()
        watch.under_way(*self._schedule.under_way)

    def _record(
        self, worker: str, shards: Iterable[InputShard], ending: Ending, why: str = ""
    ) -> None:
        for shard in shards:
            end_attempts_of(self._run, shard.shard, worker, ending, why)
