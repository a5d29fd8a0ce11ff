"""Brings batches to the models' device: the next one while one is computed, where it is a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.clean.line.batch import Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Upload:
    """Copies a batch's buffer to a GPU on a stream of its own; on a CPU it is there already."""

    def __init__(self, device: "torch.device | None" = None) -> None:
        """Prepare for a device; None is a CPU."""
        self.pinned = device is not None and device.type == "cuda"
        self._device = device
        self._begun: dict[int, tuple[Tensor, ...]] = {}
        self._stream: torch.cuda.Stream | None = None

    def begin(self, batch: Batch) -> None:
        """Begin to copy, and wait for nothing; a GPU that is full takes it later."""
        import torch

        if self.pinned and batch.buffer is not None and id(batch) not in self._begun:
            try:
                with self._copying():
                    self._begun[id(batch)] = self._copied(batch)
            except torch.OutOfMemoryError:
                return

    def take(self, batch: Batch) -> "tuple[Tensor, ...]":
        """Give a batch's views on the device, to be used by what is computed next."""
        import torch

        if not self.pinned:
            return _views(batch)
        self.begin(batch)
        views = self._begun.get(id(batch)) or self._copied(batch)
        current = torch.cuda.current_stream(self._device)
        if self._stream is not None:
            current.wait_stream(self._stream)
        for view in views:
            view.record_stream(current)
        return views

    def forget(self, batch: Batch) -> None:
        """Let go of a batch, whose buffer may be filled again then."""
        if self._begun.pop(id(batch), None) is not None and self._stream is not None:
            self._stream.synchronize()

    @contextmanager
    def _copying(self) -> "Iterator[None]":
        import torch

        self._stream = self._stream or torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._stream):
            yield

    def _copied(self, batch: Batch) -> "tuple[Tensor, ...]":
        return tuple(view.to(self._device, non_blocking=True) for view in _views(batch))


def _views(batch: Batch) -> "tuple[Tensor, ...]":
    return () if batch.buffer is None else batch.buffer.first(len(batch.pictures))
