"""A pool of Ray actors, each with the models loaded once; a task is one shard.

Only paths and small records cross processes, never pixels. Ray restarts and retries nothing: a
commit must happen once, so the pool alone decides what is done again (Ray Data's defaults run a
shard that kills its worker for ever).
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from flows.engines.engine import EngineError, ShardResult
from flows.engines.pool import Pool, TaskDone, WorkerLost
from flows.engines.ray_session import check_packages, ray_session
from pipeline.clean.shard import AttemptLost
from shards.inputs.listing import InputShard

if TYPE_CHECKING:
    from flows.engines.worker import WorkerSpec
    from flows.recipe import EngineConfig
    from shards.run.run import Run

NODES_EVERY_S = 10.0
CPUS_PER_ACTOR = 2


@contextmanager
def ray_pool(run: "Run", spec: "WorkerSpec", config: "EngineConfig") -> Iterator[Pool]:
    """Start Ray on this machine, or join a cluster, for a pool of actors that end with the block.

    What they are at then is released, to be taken up by a later run.
    """
    with ExitStack() as after_ray, ray_session(config.address) as told_to_end:
        pool = Pool(RayCluster(spec, config), run, config.stall_timeout_s, told_to_end)
        after_ray.callback(pool.release)
        yield pool


class PoolActor:
    """One Ray actor; imports nothing of ours before it has checked whose packages it would get."""

    def __init__(self, spec: "WorkerSpec", threads: int, name: str) -> None:
        check_packages()
        import torch

        from flows.engines.worker import Worker

        torch.set_num_threads(threads)
        self._worker = Worker(spec, name=name)

    @ray.method(concurrency_group="report")
    def counts(self) -> tuple[int, int]:
        """Return samples and bytes done of the shard at work; answers once models are loaded."""
        return self._worker.counts

    def process(self, shard: InputShard) -> ShardResult:
        """Clean one shard."""
        return self._worker.process(shard)


@dataclass(frozen=True, slots=True)
class ActorShare:
    """How a cluster is divided: the number of actors, and the processors and GPUs of each."""

    actors: int
    cpus: float
    gpus: float


def divide(cpus: float, gpus: float, config: "EngineConfig", shards: int) -> ActorShare:
    """Divide processors and GPUs among actors, of which there are no more than shards."""
    auto_gpus = 1.0 if gpus else 0.0
    actor_gpus = auto_gpus if config.gpus_per_actor == "auto" else config.gpus_per_actor
    if config.actors == "auto":
        most = int(gpus // actor_gpus) if actor_gpus else int(cpus // CPUS_PER_ACTOR)
    else:
        most = config.actors
    actors = max(1, min(most, shards))
    actor_cpus = cpus / actors
    # Ray takes whole processors, or a fraction of one
    whole = float(int(actor_cpus)) if actor_cpus >= 1 else round(actor_cpus, 4)
    return ActorShare(actors, whole, actor_gpus)


@dataclass(slots=True)
class _Actor:
    handle: Any
    report: Any  # the answer to the question how far it is
    tasks: deque[Any] = field(default_factory=deque)  # the one at work first


class RayCluster:
    """Runs each worker of a pool as one Ray actor; see `Cluster`."""

    def __init__(self, spec: "WorkerSpec", config: "EngineConfig") -> None:
        self._spec, self._config = spec, config
        self._share = ActorShare(1, 1.0, 0.0)
        self._actors: dict[str, _Actor] = {}
        self._nodes_at = time.monotonic()

    def capacity(self, shards: int) -> int:
        """Divide the cluster's resources; return the number of actors."""
        total = ray.cluster_resources()
        cpus, gpus = total.get("CPU", 1.0), total.get("GPU", 0.0)
        self._share = divide(cpus, gpus, self._config, shards)
        return self._share.actors

    def start(self, worker: str) -> None:
        """Start an actor with its share of the cluster."""
        remote_class = ray.remote(
            num_cpus=self._share.cpus,
            num_gpus=self._share.gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"report": 1},
        )(PoolActor)
        handle = remote_class.remote(self._spec, max(1, int(self._share.cpus)), worker)
        self._actors[worker] = _Actor(handle, handle.counts.remote())

    def submit(self, worker: str, shard: InputShard) -> None:
        """Queue a shard at an actor."""
        actor = self._actors[worker]
        actor.tasks.append(actor.handle.process.remote(shard))

    def wait(self, timeout_s: float) -> Sequence[TaskDone | WorkerLost]:
        """Wait for one of the tasks at work; an actor that is lost is forgotten."""
        at_work = {actor.tasks[0]: name for name, actor in self._actors.items() if actor.tasks}
        done, _ = ray.wait(list(at_work), num_returns=1, timeout=timeout_s)
        return [self._read(at_work[task]) for task in done]

    def progress(self, worker: str) -> tuple[int, int] | None:
        """Return an actor's answer, if it is there, and ask again."""
        actor = self._actors[worker]
        counts = _answer(actor)
        if counts is not None:
            actor.report = actor.handle.counts.remote()
        return counts

    def end(self, worker: str) -> None:
        """Kill an actor; its task at work then fails."""
        ray.kill(self._actors[worker].handle)

    def check(self) -> None:
        """Notice that no machine is left to run an actor on: Ray itself would wait for ever."""
        now = time.monotonic()
        if now - self._nodes_at <= NODES_EVERY_S:
            return
        self._nodes_at = now
        if not any(node["Alive"] for node in ray.nodes()):
            raise EngineError(
                "Ray has no node left that lives: its raylet died, by a kill or for want of "
                "memory. What is committed is safe; run the same command again"
            )

    def _read(self, worker: str) -> TaskDone | WorkerLost:
        actor = self._actors[worker]
        try:
            result = ray.get(actor.tasks[0])
        except RayTaskError as error:
            cause = cause_of(error)
            if not isinstance(cause, AttemptLost):
                raise cause from error
            ray.kill(actor.handle)  # a thread of it may never end
            return self._forget(worker, str(cause))
        except RayActorError as error:
            return self._forget(worker, str(error))
        actor.tasks.popleft()
        return TaskDone(worker, result)

    def _forget(self, worker: str, why: str) -> WorkerLost:
        actor = self._actors.pop(worker)
        return WorkerLost(worker, why, ready=_answer(actor) is not None)


def _answer(actor: _Actor) -> tuple[int, int] | None:
    try:
        counts: tuple[int, int] = ray.get(actor.report, timeout=0)
    except GetTimeoutError:
        return None
    except (RayActorError, RayTaskError):
        return None  # its task says the same, and is dealt with there
    return counts


def cause_of(error: RayTaskError) -> BaseException:
    """Return the worker's own exception, which says more than Ray's wrapping of it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error
