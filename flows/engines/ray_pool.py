"""The Ray engine: a pool of actors, each with the models loaded once; a task is one shard.

Only paths and small records cross processes, never pixels. Ray restarts and retries nothing: a
commit must happen once, so this driver alone decides what is done again (Ray Data's defaults run a
shard that kills its worker for ever).
"""

import secrets
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from flows.engines.engine import (
    EngineError,
    ProgressListener,
    ShardFailed,
    ShardResult,
    is_shard_fault,
)
from flows.engines.ray_session import check_packages, ray_session
from pipeline.clean.shard import AttemptLost
from shards.inputs.listing import InputShard
from shards.run.attempt import Ending, end_attempts_of
from shards.run.run import Run

if TYPE_CHECKING:
    from flows.engines.worker import WorkerSpec
    from flows.recipe import EngineConfig

POLL_S = 1.0
NODES_EVERY_S = 10.0
SHARDS_AHEAD = 2  # one at work and one waiting, so that an actor never waits for the driver
MAX_DEATHS = 10  # of actors on one shard: safe mode and quarantine come long before
MAX_BAD_STARTS = 3  # of actors, in a row
CPUS_PER_ACTOR = 2


class PoolActor:
    """One Ray actor; imports nothing of ours before it has checked whose rooms it would get."""

    def __init__(self, spec: "WorkerSpec", threads: int, name: str) -> None:
        check_packages()
        import torch

        from flows.engines.worker import Worker

        torch.set_num_threads(threads)
        self._worker = Worker(spec, name=name)

    @ray.method(concurrency_group="report")
    def counts(self) -> tuple[int, int]:
        """Return samples and bytes done of the shard under way; answers once models are loaded."""
        return self._worker.counts

    def process(self, shard: InputShard) -> ShardResult:
        """Clean one shard."""
        try:
            return self._worker.process(shard)
        except Exception as error:
            if not is_shard_fault(error):
                raise
            return ShardFailed(shard, str(error))


@dataclass(slots=True)
class _Seat:
    """An actor and the shards that it holds, the one at work first."""

    actor: Any
    name: str  # in the records of its attempts
    tasks: deque[tuple[InputShard, Any]] = field(default_factory=deque)
    counts: tuple[int, int] = (0, 0)
    moved_at: float = field(default_factory=time.monotonic)
    report: Any = None
    started: bool = False


class RayPool:
    """Works on shards with Ray actors; a context manager that owns the connection to Ray."""

    def __init__(self, spec: "WorkerSpec", config: "EngineConfig") -> None:
        self._spec, self._config = spec, config
        self._seats: list[_Seat] = []
        self._deaths: Counter[str] = Counter()
        self._bad_starts = 0
        self._nodes_at = time.monotonic()
        self._leaving = ExitStack()
        self._told_to_end = threading.Event()

    def __enter__(self) -> Self:
        """Start Ray on this machine, with its token authentication, or join a cluster."""
        self._told_to_end = self._leaving.enter_context(ray_session(self._config.address))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the actors and leave Ray; what they were at is released, to be taken up again."""
        self._leaving.close()
        for seat in self._seats:
            with suppress(OSError):  # on a full disk, say; such attempts count as lost
                self._record(seat, [shard for shard, _ in seat.tasks], Ending.RELEASED)

    def run(self, shards: Sequence[InputShard], watch: ProgressListener) -> Iterator[ShardResult]:
        """Clean all shards; see `Engine.run`."""
        waiting = deque(shards)
        cpus, gpus, actors = self._share(len(shards))
        self._seats = [self._seat(cpus, gpus) for _ in range(actors)]
        while waiting or any(seat.tasks for seat in self._seats):
            self._hand_out(waiting)
            yield from self._collect(waiting)
            self._look(watch)
            if self._told_to_end.is_set():
                raise SystemExit(128 + signal.SIGTERM)
            for seat in [seat for seat in self._seats if seat.actor is None]:
                self._seats.remove(seat)
                self._seats.append(self._seat(cpus, gpus))

    def _share(self, shards: int) -> tuple[float, float, int]:
        """Divide the cluster: processors and GPUs of an actor, and the number of actors."""
        found = ray.cluster_resources()
        cpus, gpus = found.get("CPU", 1.0), found.get("GPU", 0.0)
        per_actor = self._config.gpus_per_actor
        gpu = (1.0 if gpus else 0.0) if per_actor == "auto" else per_actor
        wanted = self._config.actors
        if wanted == "auto":
            wanted = int(gpus // gpu) if gpu else int(cpus // CPUS_PER_ACTOR)
        actors = max(1, min(int(wanted), shards))
        share = cpus / actors
        return (float(int(share)) if share >= 1 else round(share, 4)), gpu, actors

    def _seat(self, cpus: float, gpus: float) -> _Seat:
        make = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"report": 1},
        )(PoolActor)
        name = secrets.token_hex(8)
        seat = _Seat(make.remote(self._spec, max(1, int(cpus)), name), name)
        seat.report = seat.actor.counts.remote()
        return seat

    def _hand_out(self, waiting: deque[InputShard]) -> None:
        for ahead in range(1, SHARDS_AHEAD + 1):  # first one for each, then the second
            for seat in self._seats:
                if waiting and len(seat.tasks) < ahead:
                    shard = waiting.popleft()
                    seat.tasks.append((shard, seat.actor.process.remote(shard)))

    def _collect(self, waiting: deque[InputShard]) -> Iterator[ShardResult]:
        refs = {seat.tasks[0][1]: seat for seat in self._seats if seat.tasks}
        done, _ = ray.wait(list(refs), num_returns=1, timeout=POLL_S)
        for ref in done:
            seat = refs[ref]
            try:
                result = ray.get(ref)
            except RayTaskError as error:
                cause = _cause(error)
                if not isinstance(cause, AttemptLost):
                    raise cause from error
                ray.kill(seat.actor)  # a thread of it may never end
                yield from self._bury(seat, waiting, str(cause))
                continue
            except RayActorError as error:
                yield from self._bury(seat, waiting, str(error))
                continue
            seat.tasks.popleft()
            seat.counts, seat.moved_at = (0, 0), time.monotonic()
            self._bad_starts, seat.started = 0, True
            yield result

    def _bury(self, seat: _Seat, waiting: deque[InputShard], why: str) -> Iterator[ShardResult]:
        """Give a dead actor's shards back, to be tried again; its attempt on the first one died.

        The record of the attempts leads to safe mode, and to quarantine; a shard whose attempts
        cannot even be recorded fails here.
        """
        self._count_start(seat, why)
        held = [shard for shard, _ in seat.tasks]
        seat.tasks.clear()
        seat.actor = None
        self._record(seat, held[:1], Ending.DIED, why)
        self._record(seat, held[1:], Ending.RELEASED)
        if seat.started and held:
            self._deaths[held[0].shard] += 1
            if self._deaths[held[0].shard] >= MAX_DEATHS:
                dead = held.pop(0)
                yield ShardFailed(dead, f"its worker died {MAX_DEATHS} times; the last: {why}")
        waiting.extendleft(reversed(held))

    def _record(
        self, seat: _Seat, shards: Sequence[InputShard], ending: Ending, why: str = ""
    ) -> None:
        run = Run.open(self._spec.run_url)
        for shard in shards:
            end_attempts_of(run, shard.shard, seat.name, ending, why)

    def _count_start(self, seat: _Seat, why: str) -> None:
        if not seat.started:
            with suppress(RayActorError, RayTaskError, GetTimeoutError):
                ray.get(seat.report, timeout=0)
                seat.started = True
        self._bad_starts = 0 if seat.started else self._bad_starts + 1
        if self._bad_starts >= MAX_BAD_STARTS:
            raise EngineError(f"{MAX_BAD_STARTS} Ray actors in a row could not start: {why}")

    def _look(self, watch: ProgressListener) -> None:
        """Ask each actor how far it is; end one that has finished no sample for too long."""
        now = time.monotonic()
        for seat in self._seats:
            if seat.actor is None:
                continue
            self._ask(seat, now)
            if seat.tasks and seat.started and now - seat.moved_at > self._config.stall_timeout_s:
                ray.kill(seat.actor)  # its task now fails, and is buried like any death
        if now - self._nodes_at > NODES_EVERY_S:
            self._nodes_at = now
            _check_nodes()
        under_way = [seat.counts for seat in self._seats]
        watch.under_way(sum(samples for samples, _ in under_way), sum(b for _, b in under_way))

    def _ask(self, seat: _Seat, now: float) -> None:
        try:
            answer = ray.get(seat.report, timeout=0)
        except GetTimeoutError:
            return
        except (RayActorError, RayTaskError):
            return  # its task tells the same, and is dealt with there
        if not seat.started or answer != seat.counts:
            seat.started, seat.counts, seat.moved_at = True, answer, now
        seat.report = seat.actor.counts.remote()


def _check_nodes() -> None:
    """Notice that no machine is left to run an actor on: Ray itself would wait for ever."""
    if not any(node["Alive"] for node in ray.nodes()):
        raise EngineError(
            "Ray has no node left that lives: its raylet died, by a kill or for want of memory. "
            "What is committed is safe; run the same command again"
        )


def _cause(error: RayTaskError) -> BaseException:
    """Give the worker's own exception, which says more than Ray's wrapping of it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error
