"""A pool of Ray actors, each with the models loaded once; a task is one shard.

Only paths and small records cross processes, never pixels. Ray restarts and retries nothing: a
commit must happen once, so the pool alone decides what is done again (Ray Data's defaults run a
shard that kills its worker for ever). Each actor is sized by the machine that it is placed on.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic

import ray
from ray import cloudpickle
from ray.exceptions import (
    ActorUnschedulableError,
    GetTimeoutError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flows.engines.address import join_address
from flows.engines.job import Grant, Records, Result, Shard, ShardJob
from flows.engines.placement import Seat, Wish, free_seats
from flows.engines.pool import Event, Pool, TaskDone, WorkerLost, WorkerReady
from flows.engines.ray.actor import PoolActor, Progress, Started
from flows.engines.ray.nodes import LOOK_EVERY_S, RayNodes
from flows.engines.ray.session import ray_session
from flows.engines.start_checks import Demands, MachineUnfit, Requirements, requirements
from flows.recipe import EngineConfig
from pipeline.clean.line.attempt import AttemptLost

PLACED_WITHIN_S = 30.0  # or others hold what Ray had free

_log = logging.getLogger(__name__)
# Ray's memory monitor kills an actor by an error that is no RayActorError
_Lost = (RayActorError, ActorUnschedulableError, OutOfMemoryError)


@contextmanager
def ray_pool(
    job: ShardJob[Shard, Result],
    records: Records[Shard, Result],
    demands: Demands,
    config: EngineConfig,
) -> Iterator[Pool[Shard, Result]]:
    """Start Ray on this machine, or join a cluster, for a pool of actors that end with the block.

    What they are at then is released, to be taken up by a later run.
    """
    with ExitStack() as leaving:
        checks = leaving.enter_context(requirements(demands, config.forward_env))
        address = join_address(config.address)
        told_to_end = leaving.enter_context(ray_session(address))
        nodes = RayNodes(
            wish_of(config, demands.worker_bytes), config.start_timeout_s, bool(address)
        )
        leaving.enter_context(closing(nodes))
        cluster = RayCluster[Shard, Result](job, checks, nodes)
        pool = Pool(cluster, records, config.stall_timeout_s, told_to_end)
        leaving.callback(pool.release)  # before Ray goes, which a job's end may cut short
        leaving.callback(cluster.end_all)
        yield pool


def wish_of(config: EngineConfig, worker_bytes: int = 0) -> Wish:
    """Read from a recipe what is asked of the machines."""
    return Wish(config.actors, config.gpus_per_actor, worker_bytes)


@dataclass(slots=True)
class _Actor:
    handle: Any
    seat: Seat
    starting: Any  # the answer to `start`, or None once it is ready
    report: Any  # the answer to the question how far it is
    begun_at: float
    placed: bool = False
    tasks: deque[Any] = field(default_factory=deque)  # the one at work first

    def answer(self) -> Progress | None:
        """Read how far it is, if it has said so; a loss is noticed by its tasks, if it has any."""
        try:
            answer: Progress = ray.get(self.report, timeout=0)
        except RayTaskError as error:
            raise cause_of(error) from error
        except (GetTimeoutError, *_Lost):
            return None
        return answer

    def is_lost(self) -> bool:
        """Whether the question how far it is found nobody."""
        try:
            ray.get(self.report, timeout=0)
        except GetTimeoutError:
            return False
        except RayTaskError as error:
            raise cause_of(error) from error
        except _Lost:
            return True
        return False


class RayCluster(Generic[Shard, Result]):
    """Runs each worker of a pool as one Ray actor; see `Cluster`."""

    def __init__(self, job: ShardJob[Shard, Result], checks: Requirements, nodes: RayNodes) -> None:
        self._job, self._checks, self._nodes = cloudpickle.dumps(job), checks, nodes
        self._actors: dict[str, _Actor] = {}
        self._grow_at, self._grown_to = 0.0, 0
        self._remote_class = ray.remote(
            max_restarts=0, max_task_retries=0, concurrency_groups={"report": 1}
        )(PoolActor)

    def grow(self, unfinished: int, name: Callable[[], str]) -> Iterator[str]:
        """Start actors on the seats that are free, as machines come and go.

        Seats are sought again when an actor is lost, or after a while: not at each shard's end.
        """
        now = time.monotonic()
        if len(self._actors) >= self._grown_to and now < self._grow_at:
            return
        self._grow_at = now + LOOK_EVERY_S
        taken = [actor.seat for actor in self._actors.values()]
        machines = self._nodes.look([a.seat for a in self._actors.values() if a.placed])
        if machines is None:
            return
        self._nodes.count_room(machines, unfinished)
        for seat in free_seats(machines, self._nodes.wish, unfinished, taken):
            worker = name()
            self._start(worker, seat)
            yield worker
        self._grown_to = len(self._actors)
        self._nodes.wait(machines, len(self._actors), unfinished)

    def submit(self, worker: str, shard: Shard) -> None:
        """Queue a shard at an actor; it hears at once of one that has to wait."""
        actor = self._actors[worker]
        if actor.tasks:
            actor.handle.expect.remote(shard)
        actor.tasks.append(actor.handle.process.remote(shard))

    def withdraw(self, worker: str) -> None:
        """Cancel the task queued last; if it has just begun, its commit will lose or win."""
        actor = self._actors[worker]
        ray.cancel(actor.tasks.pop())
        actor.handle.expect.remote(None)

    def wait(self, timeout_s: float) -> Sequence[Event[Result]]:
        """Wait for one of the tasks at work, or for an actor to start; a lost one is forgotten."""
        waited = {a.tasks[0]: name for name, a in self._actors.items() if a.tasks}
        waited |= {a.starting: name for name, a in self._actors.items() if a.starting is not None}
        done, _ = ray.wait(list(waited), num_returns=1, timeout=timeout_s) if waited else ([], [])
        if not waited:
            time.sleep(timeout_s)
        return [self._read(waited[task]) for task in done] or list(self._unplaced())

    def progress(self, worker: str) -> tuple[int, int] | None:
        """Return an actor's answer, if it is there, and ask again."""
        actor = self._actors.get(worker)
        answer = actor.answer() if actor else None
        if actor is None or answer is None:
            return None
        actor.placed, actor.report = True, actor.handle.report.remote()
        for line in answer.lines:
            _log.warning("%s: %s", actor.seat.host, line)
        return answer.counts

    def end(self, worker: str) -> None:
        """Kill an actor; its task at work then fails."""
        if worker in self._actors:
            ray.kill(self._actors[worker].handle)

    def end_all(self) -> None:
        """Kill all actors; without a head to do that, they end with this process."""
        for worker in () if self._nodes.head.is_silent else self._actors:
            with suppress(RayError, RuntimeError):  # Ray itself may be gone
                self.end(worker)

    def _start(self, worker: str, seat: Seat) -> None:
        handle = self._remote_class.options(
            num_cpus=seat.cpus,
            num_gpus=seat.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(seat.machine, soft=False),
        ).remote()
        threads = max(1, int(seat.cpus))
        grant = Grant(worker, seat.gpus, threads)
        starting = handle.start.remote(self._checks, self._job, grant, threads)
        report = handle.report.remote()
        self._actors[worker] = _Actor(handle, seat, starting, report, time.monotonic())

    def _read(self, worker: str) -> Event[Result]:
        actor = self._actors[worker]
        if actor.starting is not None:
            return self._read_start(worker, actor)
        try:
            result = ray.get(actor.tasks[0])
        except RayTaskError as error:
            cause = cause_of(error)
            if not isinstance(cause, AttemptLost):
                raise cause from error
            ray.kill(actor.handle)  # a thread of it may never end
            return self._forget(worker, str(cause))
        except _Lost as error:
            return self._forget(worker, str(error))
        actor.tasks.popleft()
        return TaskDone(worker, result)

    def _read_start(self, worker: str, actor: _Actor) -> Event[Result]:
        """Read how a start went; a machine that is unfit is left out, and a bug is raised."""
        try:
            started: Started = ray.get(actor.starting)
        except RayTaskError as error:
            cause = cause_of(error)
            ray.kill(actor.handle)
            if isinstance(cause, MachineUnfit) or hasattr(type(cause), "exit_code"):
                self._nodes.leave_out(actor.seat, str(cause))
            elif isinstance(cause, OSError | MemoryError):
                self._nodes.note_start(actor.seat, f"{type(cause).__name__}: {cause}")
            else:
                raise cause from error
            return self._forget(worker, str(cause))
        except ActorUnschedulableError as error:
            self._nodes.doubt(actor.seat.machine)
            return self._forget(worker, str(error))
        except (RayActorError, OutOfMemoryError) as error:
            if self._nodes.lives(actor.seat.machine):
                self._nodes.note_start(actor.seat, gist(error))
            return self._forget(worker, str(error))
        self._nodes.note_start(actor.seat, None)
        actor.starting = None
        actor.placed = True
        ready = started.device, started.log, started.warm_up_s
        return WorkerReady(worker, actor.seat.host, *ready)

    def _unplaced(self) -> Iterable[Event[Result]]:
        """Give up actors that nothing comes of: on machines that are lost, or held by others."""
        now = time.monotonic()
        for worker, actor in list(self._actors.items()):
            if not actor.tasks and actor.starting is None and actor.is_lost():
                yield self._forget(worker, "its machine is lost, or it was killed while idle")
            elif not actor.placed and now - actor.begun_at > PLACED_WITHIN_S:
                ray.kill(actor.handle)
                why = f"Ray did not place it in {PLACED_WITHIN_S:g} s: others hold what was free"
                _log.warning("a worker on %s: %s", actor.seat.host, why)
                yield self._forget(worker, why)

    def _forget(self, worker: str, why: str) -> WorkerLost:
        del self._actors[worker]
        return WorkerLost(worker, why)


def cause_of(error: RayTaskError) -> BaseException:
    """Return the worker's own exception, which says more than Ray's wrapping of it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def gist(error: BaseException) -> str:
    """Return the line of an error of Ray's that says why: ids and advice surround it, at length.

    Where an actor was never made, that is the last one: mostly, its machine lacks our packages.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if "creation task" not in lines[0]:
        return lines[0]
    missing = lines[-1].startswith("ModuleNotFoundError")
    return lines[-1] + ("; install the same capfilt on every machine" if missing else "")
