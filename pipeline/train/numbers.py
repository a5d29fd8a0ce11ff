"""The numbers of steps: they wait on the device until they are read, many steps at a time.

A step that read its own loss would wait for the GPU, and the GPU afterwards for the next step. They
are read where they are logged, and before anything is saved.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.workers import Workers


@dataclass(frozen=True, slots=True)
class StepNumbers:
    """The numbers of a step, the mean of all workers; `samples` are those taken until then."""

    step: int
    samples: int
    values: dict[str, float]


class PendingNumbers:
    """Keeps the numbers of steps on their device; all workers read them after the same step."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._waiting: list[tuple[int, int, Mapping[str, Tensor]]] = []

    def add(self, step: int, samples: int, numbers: Mapping[str, Tensor]) -> None:
        """Keep a step's numbers; nothing is waited for."""
        self._waiting.append((step, samples, numbers))

    def read(self) -> list[StepNumbers]:
        """Read what waits, step after step, in one copy from the device."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        tensors = [value.float() for *_, numbers in waiting for value in numbers.values()]
        values = iter(self._workers.mean(torch.stack(tensors)).tolist())
        return [
            StepNumbers(step, samples, {name: next(values) for name in numbers})
            for step, samples, numbers in waiting
        ]
