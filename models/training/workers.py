"""The workers of a distributed training, each with a part of the global batch.

A contrast and its hard negatives need the rows of all workers, and a mean over the global batch
needs all counts. Gradients are averaged over the workers afterwards (DDP), so that each worker's
loss is written as if its sum were the whole: divided by the mean count, not by its own.

Shapes: B rows of this worker, W = size x B rows of all.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Workers:
    """This worker's place among all; every worker must have as many rows as the others."""

    rank: int = 0
    size: int = 1

    def gather(self, rows: Tensor) -> Tensor:
        """Put the rows (B, …) of all workers in order, as (W, …), without their gradients."""
        rows = rows.detach()
        if self.size == 1:
            return rows
        mine = rows.contiguous()
        found = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine)
        return torch.cat(found)

    def gather_with_gradient(self, rows: Tensor) -> Tensor:
        """Put the rows (B, …) of all workers in order, as (W, …); gradients go back to all."""
        return rows if self.size == 1 else _Gathered.apply(rows, self)

    def mean(self, value: Tensor) -> Tensor:
        """Average a number over the workers, without its gradient."""
        total = value.detach().clone()
        if self.size == 1:
            return total
        dist.all_reduce(total)
        return total / self.size

    def longest(self, length: int) -> int:
        """Return the largest of all workers' lengths."""
        if self.size == 1:
            return length
        found = torch.tensor([length], device=self._device())
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def collect(self, value: Any) -> list[Any]:  # noqa: ANN401 - any small object
        """Exchange the small objects of all workers, in order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def _device(self) -> torch.device:
        return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


class _Gathered(torch.autograd.Function):
    """All-gather whose backward pass adds up what all workers found for a worker's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, workers: Workers) -> Tensor:  # noqa: ANN401 - torch's
        ctx.workers = workers
        return workers.gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's
        total = gradient.clone(memory_format=torch.contiguous_format)  # others may hold it too
        dist.all_reduce(total)
        return total.chunk(ctx.workers.size)[ctx.workers.rank], None


ALONE = Workers()
