"""The pool: runs a schedule of shards on the workers of a cluster, whatever that is made of."""

import logging
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Generic, Protocol

from flows.engines.engine import ProgressListener, WorkerReport
from flows.engines.job import Records, Result, Shard, ShardTaken
from flows.engines.schedule import Schedule
from flows.run_log.events import fields_of, tell, tell_ready
from shards.run.attempt import Ending

POLL_S = 1.0
LOOK_UP_EVERY_S = 10.0
MOST_OF_WHY = 100  # characters; the attempt's record has it whole

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker has loaded what it needs, and takes shards from now on."""

    worker: str
    host: str
    device: str
    log: str = ""
    warm_up_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskDone(Generic[Result]):
    """A worker's shard at work has come to a result."""

    worker: str
    result: Result


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker that is no more: it died, was ended, could not start, or lost its attempt."""

    worker: str
    why: str


Event = WorkerReady | TaskDone[Result] | WorkerLost


class Cluster(Protocol[ShardTaken, Result]):
    """Runs workers by name; each does its shards one after the other, in the order submitted."""

    def grow(self, unfinished: int, name: Callable[[], str]) -> Iterable[str]:
        """Start the workers that there is room for now, no more than shards; yield their names.

        Tells the user, now and then, what there is no room for. Raises EngineError where no machine
        is left, or comes, to run a worker on.
        """

    def submit(self, worker: str, shard: ShardTaken) -> None:
        """Queue a shard at a ready worker, behind those that it has."""

    def withdraw(self, worker: str) -> None:
        """Take back the shard that was queued last, if the worker has not begun it."""

    def wait(self, timeout_s: float) -> Sequence[Event[Result]]:
        """Return what has happened to workers, or nothing after a time.

        Raises what a worker raised that is no single shard's fault.
        """

    def progress(self, worker: str) -> tuple[int, int] | None:
        """Return samples and bytes done of a worker's shard at work, or None for no answer yet."""

    def end(self, worker: str) -> None:
        """End a worker at once; it comes back as WorkerLost."""


@dataclass(slots=True)
class _Tally:
    """What a worker has done, for the report on it."""

    worker: WorkerReady
    ready_at: float
    last_done_at: float
    shards: int = 0
    samples: int = 0

    def report(self) -> WorkerReport:
        """Sum up."""
        rate = self.samples / max(self.last_done_at - self.ready_at, 1e-9)
        worker = self.worker
        return WorkerReport(
            worker.host, worker.device, self.shards, self.samples, round(rate, 2), worker.log
        )


class Pool(Generic[Shard, Result]):
    """Works on shards with as many workers as a cluster has room for; a lost one is replaced."""

    def __init__(
        self,
        cluster: Cluster[Shard, Result],
        records: Records[Shard, Result],
        stall_timeout_s: float,
        stop: threading.Event,
    ) -> None:
        """Make a pool over a cluster, which ends with SystemExit soon after `stop` is set."""
        self._cluster, self._records, self._stop = cluster, records, stop
        self._stall_timeout_s = stall_timeout_s
        self._schedule = Schedule[Shard]((), stall_timeout_s)
        self._tallies: dict[str, _Tally] = {}
        self._look_at, self._looked_up_at = 0.0, time.monotonic()

    def run(self, shards: Sequence[Shard], watch: ProgressListener) -> Iterator[Result]:
        """Do all shards; see `Engine.run`."""
        self._schedule = schedule = Schedule(shards, self._stall_timeout_s)
        while schedule.unfinished:
            for worker in self._cluster.grow(schedule.unfinished, _new_name):
                schedule.add(worker)
            for worker, shard in schedule.assign():
                self._cluster.submit(worker, shard)
            for holder, worker, shard in schedule.steal():
                self._cluster.withdraw(holder)
                self._cluster.submit(worker, shard)
            for event in self._cluster.wait(POLL_S):
                yield from self._settle(event)
            if time.monotonic() >= self._look_at:  # not at each of a thousand workers' events
                self._look_at = time.monotonic() + POLL_S
                self._look_after_workers(watch)
                yield from self._look_up()
            if self._stop.is_set():
                raise SystemExit(128 + signal.SIGTERM)

    def release(self) -> None:
        """Record that the shards still held are released, to be done by a later run."""
        for name, worker in self._schedule.workers.items():
            self._record(name, worker.shards, Ending.RELEASED)

    @property
    def reports(self) -> tuple[WorkerReport, ...]:
        """What each worker was and has done, in the order in which they became ready."""
        return tuple(tally.report() for tally in self._tallies.values())

    def _settle(self, event: Event[Result]) -> Iterator[Result]:
        """Take note of an event; yields the result of a shard that is through.

        The record of its attempts leads a shard to safe mode, and to quarantine; one whose attempts
        cannot even be recorded fails here.
        """
        if event.worker not in self._schedule.workers:
            return
        if isinstance(event, WorkerReady):
            self._schedule.mark_ready(event.worker)
            now = time.monotonic()
            self._tallies[event.worker] = _Tally(event, now, now)
            tell_ready(event.worker, event.host, event.device, event.log, event.warm_up_s)
        elif isinstance(event, TaskDone):
            self._schedule.complete(event.worker)
            self._count(event.worker, event.result)
            yield event.result
        else:
            loss = self._schedule.lose(event.worker)
            self._tell_loss(event, loss.at_work)
            # one that waited may have been begun ahead, and be what has killed the worker
            self._record(event.worker, (*loss.at_work, *loss.waiting), Ending.DIED, event.why)
            if loss.deaths:
                why = f"its worker died {loss.deaths} times; the last: {event.why}"
                yield self._records.failed(loss.at_work[0], why)

    def _tell_loss(self, lost: WorkerLost, at_work: Sequence[Shard]) -> None:
        """Warn of a worker that is lost at a shard; of others, machines' warnings say enough."""
        tally = self._tallies.get(lost.worker)
        host = tally.worker.host if tally else ""
        fields: dict[str, Any] = {"worker": lost.worker, "host": host, "why": lost.why}
        for shard in at_work:
            why = shorten(next(iter(lost.why.splitlines()), ""), MOST_OF_WHY, placeholder=" …")
            extra = fields_of("worker_lost", shard=shard.shard, **fields)
            _log.warning(
                "a worker on %s is lost at shard %s: %s", host, shard.shard, why, extra=extra
            )
        if not at_work:
            tell("worker_lost", f"a worker on {host or 'a machine'} is lost: {lost.why}", **fields)

    def _count(self, worker: str, result: Result) -> None:
        tally = self._tallies[worker]
        tally.shards += 1
        tally.samples += self._records.samples(result)
        tally.last_done_at = time.monotonic()

    def _look_after_workers(self, watch: ProgressListener) -> None:
        """Ask each worker how far it is; end those that have finished no sample for too long."""
        for name in self._schedule.workers:
            counts = self._cluster.progress(name)
            if counts is not None:
                self._schedule.progress(name, counts)
        for name in self._schedule.stalled():
            self._cluster.end(name)
        watch.under_way(*self._schedule.under_way)

    def _look_up(self) -> Iterator[Result]:
        """Yield the results of shards at work that have one already.

        A machine that is lost may have done its shard all the same, and another driver too: what
        nobody waits for need not hold up the end.
        """
        now = time.monotonic()
        if not self._schedule.all_begun or now - self._looked_up_at < LOOK_UP_EVERY_S:
            return
        self._looked_up_at = now
        for worker in self._schedule.stalled(LOOK_UP_EVERY_S):
            shard = self._schedule.workers[worker].shards[0]
            result = self._records.look_up(shard)
            if result is not None:
                self._cluster.end(worker)
                loss = self._schedule.drop(worker)
                self._record(worker, (*loss.at_work, *loss.waiting), Ending.RELEASED)
                yield result

    def _record(self, worker: str, shards: Iterable[Shard], ending: Ending, why: str = "") -> None:
        for shard in shards:
            with suppress(OSError):  # on a full disk, say; such attempts count as lost
                self._records.ended(shard, worker, ending, why)


def _new_name() -> str:
    return secrets.token_hex(8)  # in the records of its attempts
