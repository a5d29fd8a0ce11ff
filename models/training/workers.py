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

    def take(self, rows: Tensor, index: Tensor) -> Tensor:
        """Take rows by their numbers (B,) among those of all workers, (B, …); gradients go back.

        What nobody takes does not travel. How much does is known on the host: the device is
        waited for once.
        """
        return rows[index] if self.size == 1 else _Taken.apply(rows, self._exchange(index))

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

    def _exchange(self, index: Tensor) -> "_Exchange":
        """Find out which of this worker's rows go to whom."""
        wishes = self.gather(index).cpu().view(self.size, -1)  # (size, B)
        owners, local = wishes // wishes.shape[1], wishes % wishes.shape[1]
        mine = owners == self.rank
        received = owners[self.rank].argsort(stable=True)  # what comes is in the order of owners
        return _Exchange(
            sent=local[mine].to(index.device),
            received=received.to(index.device),
            sent_counts=mine.sum(1).tolist(),
            received_counts=owners[self.rank].bincount(minlength=self.size).tolist(),
        )

    def _device(self) -> torch.device:
        return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


@dataclass(frozen=True, slots=True)
class _Exchange:
    """Rows that go to each worker, and places that those of each come to.

    `sent`: numbers of own rows, for one worker after the other; `received`: places among the rows
    that were asked for.
    """

    sent: Tensor
    received: Tensor
    sent_counts: list[int]
    received_counts: list[int]


class _Taken(torch.autograd.Function):
    """Rows that travel to who asked for them, and whose gradients travel back and add up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, exchange: _Exchange) -> Tensor:  # noqa: ANN401 - torch's
        ctx.exchange, ctx.shape = exchange, rows.shape
        wanted = rows.detach()[exchange.sent]
        arrived = wanted.new_empty(len(exchange.received), *rows.shape[1:])
        sizes = exchange.received_counts, exchange.sent_counts
        dist.all_to_all_single(arrived, wanted, *sizes)
        taken = torch.empty_like(arrived)
        taken[exchange.received] = arrived
        return taken

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's
        exchange: _Exchange = ctx.exchange
        leaving = gradient[exchange.received]
        arrived = leaving.new_empty(len(exchange.sent), *gradient.shape[1:])
        dist.all_to_all_single(arrived, leaving, exchange.sent_counts, exchange.received_counts)
        total = gradient.new_zeros(ctx.shape)
        return total.index_add_(0, exchange.sent, arrived), None  # a row may be asked for often


ALONE = Workers()
