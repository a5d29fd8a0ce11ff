"""The task mixture: what the steps of a training take their batches from.

The task of a step is drawn by (seed, step), alike on all workers and after any restart. The lanes
of a second task are numbered after those of the first.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from models.blip.tokenizer import normalise
from pipeline.train.dataloader import Batch, BatchLoader
from shards.training.source import Source

Positions = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class TaskSource:
    """Sources, how their texts are read, and the share of the steps that are taken on them."""

    sources: Sequence[Source]
    max_tokens: int
    clean: Callable[[str], str] = normalise
    share: float = 1.0


class TaskMixture:
    """One worker's loaders, to be closed; `open_loader` opens that of a task at its positions.

    `positions` are those of this worker's lanes, in all tasks.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSource],
        open_loader: Callable[[TaskSource, Positions], BatchLoader],
        lanes: int,
        seed: int,
        positions: Positions,
    ) -> None:
        self._tasks, self._lanes, self._seed = tasks, lanes, seed
        self._loaders: list[BatchLoader] = []
        for number, task in enumerate(tasks):
            first = number * lanes
            local = {k - first: taken for k, taken in positions.items() if k // lanes == number}
            self._loaders.append(open_loader(task, local))
        self._batches = [iter(loader) for loader in self._loaders]

    @property
    def rows_per_epoch(self) -> float:
        """Samples in an epoch of the first task, by which epochs are counted."""
        return self._loaders[0].rows_per_epoch

    def take(self, step: int, parts: int) -> tuple[list[Batch], dict[int, int]]:
        """Take the parts of a step's batch, and the positions that it moves."""
        number = self._draw(step)
        batches = [next(self._batches[number]) for _ in range(parts)]
        # of the last batch taken: what a loader has read ahead of the step is not done
        moved = batches[-1].positions
        return batches, {number * self._lanes + lane: taken for lane, taken in moved.items()}

    def _draw(self, step: int) -> int:
        if len(self._tasks) == 1:
            return 0
        shares = [task.share for task in self._tasks]
        draw = random.Random(f"{self._seed}/course/{step}")  # another word would draw otherwise
        return draw.choices(range(len(shares)), shares)[0]

    def close(self) -> None:
        """Close all loaders."""
        for loader in self._loaders:
            loader.close()
