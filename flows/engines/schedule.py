"""Which worker has which shard: hand-out, progress, deaths and retries, as plain bookkeeping.

Nothing here knows what a worker is or how it is asked: names and events go in, decisions come out.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from flows.engines.engine import EngineError, ShardFailed
from shards.inputs.listing import InputShard

SHARDS_AHEAD = 2  # one at work and one waiting, so that a worker never waits for the driver
MAX_DEATHS = 10  # of workers on one shard: safe mode and quarantine come long before
MAX_BAD_STARTS = 3  # of workers, in a row


@dataclass(slots=True)
class WorkerState:
    """The shards that a worker holds, the one at work first, and how far it is with that one."""

    shards: deque[InputShard] = field(default_factory=deque)
    counts: tuple[int, int] = (0, 0)  # samples and bytes done of the shard at work
    progressed_at: float = 0.0
    ready: bool = False  # its models are loaded


@dataclass(frozen=True, slots=True)
class Loss:
    """What a lost worker leaves: the shard that it was at, those that it had not begun."""

    at_work: tuple[InputShard, ...]  # at most one
    waiting: tuple[InputShard, ...]
    failure: ShardFailed | None = None  # where the shard at work is not tried again


class Schedule:
    """The state of a pool; every shard is waiting, held by one worker, or done."""

    def __init__(
        self,
        shards: Sequence[InputShard],
        stall_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workers: dict[str, WorkerState] = {}
        self._waiting = deque(shards)
        self._stall_timeout_s, self._clock = stall_timeout_s, clock
        self._deaths: Counter[str] = Counter()
        self._bad_starts = 0

    @property
    def unfinished(self) -> bool:
        """Whether any shard is still waiting or held."""
        return bool(self._waiting) or any(worker.shards for worker in self.workers.values())

    @property
    def under_way(self) -> tuple[int, int]:
        """Samples and bytes done of all shards at work."""
        counts = [worker.counts for worker in self.workers.values()]
        return sum(samples for samples, _ in counts), sum(size_bytes for _, size_bytes in counts)

    def add(self, name: str) -> None:
        """Take in a new worker, which is not ready yet."""
        self.workers[name] = WorkerState(progressed_at=self._clock())

    def assign(self) -> Iterator[tuple[str, InputShard]]:
        """Hand out waiting shards: first one for each worker, then the second."""
        for ahead in range(1, SHARDS_AHEAD + 1):
            for name, worker in self.workers.items():
                if self._waiting and len(worker.shards) < ahead:
                    if not worker.shards:
                        worker.progressed_at = self._clock()  # it had nothing to make progress with
                    worker.shards.append(self._waiting.popleft())
                    yield name, worker.shards[-1]

    def progress(self, name: str, counts: tuple[int, int]) -> None:
        """Note how far a worker says it is; its first word says that it is ready."""
        worker = self.workers[name]
        if not worker.ready or counts != worker.counts:
            worker.ready, worker.counts, worker.progressed_at = True, counts, self._clock()

    def complete(self, name: str) -> None:
        """Take the shard at work from a worker that has done it."""
        worker = self.workers[name]
        worker.shards.popleft()
        worker.ready, worker.counts, worker.progressed_at = True, (0, 0), self._clock()
        self._bad_starts = 0

    def stalled(self) -> list[str]:
        """List the workers that have finished no sample for too long."""
        oldest = self._clock() - self._stall_timeout_s
        return [
            name
            for name, worker in self.workers.items()
            if worker.shards and worker.ready and worker.progressed_at < oldest
        ]

    def lose(self, name: str, why: str, ready: bool = False) -> Loss:
        """Return a lost worker's shards to the waiting ones, ahead of all others.

        `ready`: it had been, though it may not have said so. A shard that has cost too many workers
        fails. Raises EngineError, and keeps the worker, after too many in a row that never were.
        """
        worker = self.workers[name]
        worker.ready = worker.ready or ready
        self._bad_starts = 0 if worker.ready else self._bad_starts + 1
        if self._bad_starts >= MAX_BAD_STARTS:
            raise EngineError(f"{MAX_BAD_STARTS} Ray actors in a row could not start: {why}")
        del self.workers[name]
        shards = tuple(worker.shards)
        failure = self._count_death(shards[0], why) if worker.ready and shards else None
        self._waiting.extendleft(reversed(shards[1:] if failure else shards))
        return Loss(shards[:1], shards[1:], failure)

    def _count_death(self, shard: InputShard, why: str) -> ShardFailed | None:
        self._deaths[shard.shard] += 1
        if self._deaths[shard.shard] < MAX_DEATHS:
            return None
        return ShardFailed(shard, f"its worker died {MAX_DEATHS} times; the last: {why}")
