"""Which worker has which shard: hand-out, progress, deaths and retries, as plain bookkeeping.

Nothing here knows what a worker is or how it is asked: names and events go in, decisions come out.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

from flows.engines.job import Shard

SHARDS_AHEAD = 2  # one at work and one waiting, so that a worker never waits for the driver
MAX_DEATHS = 10  # of workers on one shard: safe mode and quarantine come long before


@dataclass(slots=True)
class WorkerState(Generic[Shard]):
    """The shards that a worker holds, the one at work first, and how far it is with that one."""

    shards: deque[Shard] = field(default_factory=deque)
    counts: tuple[int, int] = (0, 0)  # samples and bytes done of the shard at work
    progressed_at: float = 0.0
    ready: bool = False  # its models are loaded


@dataclass(frozen=True, slots=True)
class Loss(Generic[Shard]):
    """What a lost worker leaves: the shard that it was at, those that it had not begun."""

    at_work: tuple[Shard, ...]  # at most one
    waiting: tuple[Shard, ...]
    deaths: int = 0  # where the shard at work has cost too many workers to be tried again


class Schedule(Generic[Shard]):
    """The state of a pool; every shard is waiting, held by one worker, or done.

    Only workers that are ready hold shards, so that a slow start keeps none from being done.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        stall_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workers: dict[str, WorkerState[Shard]] = {}
        self._waiting = deque(shards)
        self._stall_timeout_s, self._clock = stall_timeout_s, clock
        self._deaths: Counter[str] = Counter()

    @property
    def unfinished(self) -> int:
        """The number of shards that are still waiting or held."""
        return len(self._waiting) + sum(len(worker.shards) for worker in self.workers.values())

    @property
    def all_begun(self) -> bool:
        """Whether every shard is done or held by a worker."""
        return not self._waiting

    @property
    def under_way(self) -> tuple[int, int]:
        """Samples and bytes done of all shards at work."""
        counts = [worker.counts for worker in self.workers.values()]
        return sum(samples for samples, _ in counts), sum(size_bytes for _, size_bytes in counts)

    def add(self, name: str) -> None:
        """Take in a new worker, which is not ready yet."""
        self.workers[name] = WorkerState(progressed_at=self._clock())

    def mark_ready(self, name: str) -> None:
        """Note that a worker can work from now on."""
        self.workers[name].ready = True

    def assign(self) -> Iterator[tuple[str, Shard]]:
        """Hand out waiting shards: first one for each ready worker, then the second."""
        for ahead in range(1, SHARDS_AHEAD + 1):
            for name, worker in self.workers.items():
                if self._waiting and worker.ready and len(worker.shards) < ahead:
                    yield name, self._give(worker, self._waiting.popleft())

    def steal(self) -> Iterator[tuple[str, str, Shard]]:
        """Hand shards that wait at one worker to idle ones: yields who had it, who has it now.

        An idle worker is one for which no shard was waiting.
        """
        for name, worker in self.workers.items():
            holder = max(self.workers, key=lambda other: len(self.workers[other].shards))
            if worker.ready and not worker.shards and len(self.workers[holder].shards) > 1:
                yield holder, name, self._give(worker, self.workers[holder].shards.pop())

    def _give(self, worker: WorkerState[Shard], shard: Shard) -> Shard:
        if not worker.shards:
            worker.progressed_at = self._clock()  # it had nothing to make progress with
        worker.shards.append(shard)
        return shard

    def progress(self, name: str, counts: tuple[int, int]) -> None:
        """Note how far a worker says it is."""
        worker = self.workers[name]
        if counts != worker.counts:
            worker.counts, worker.progressed_at = counts, self._clock()

    def complete(self, name: str) -> None:
        """Take the shard at work from a worker that has done it."""
        worker = self.workers[name]
        worker.shards.popleft()
        worker.counts, worker.progressed_at = (0, 0), self._clock()

    def stalled(self, after_s: float | None = None) -> list[str]:
        """List the workers that have finished no sample for so long (default: the time-out)."""
        oldest = self._clock() - (self._stall_timeout_s if after_s is None else after_s)
        return [
            name
            for name, worker in self.workers.items()
            if worker.shards and worker.progressed_at < oldest
        ]

    def lose(self, name: str) -> Loss[Shard]:
        """Return a lost worker's shards to the waiting ones, ahead of all others.

        A shard that has cost too many workers is not among them.
        """
        shards = tuple(self.workers.pop(name).shards)
        deaths = self._count_death(shards[0]) if shards else 0
        self._waiting.extendleft(reversed(shards[1:] if deaths else shards))
        return Loss(shards[:1], shards[1:], deaths)

    def drop(self, name: str) -> Loss[Shard]:
        """Take leave of a worker whose shard at work is done by another; return the rest."""
        shards = tuple(self.workers.pop(name).shards)
        self._waiting.extendleft(reversed(shards[1:]))
        return Loss(shards[:1], shards[1:])

    def _count_death(self, shard: Shard) -> int:
        self._deaths[shard.shard] += 1
        deaths = self._deaths[shard.shard]
        return deaths if deaths >= MAX_DEATHS else 0
