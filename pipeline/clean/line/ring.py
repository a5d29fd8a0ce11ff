"""What bounds the batches on their way: buffers for their pixels, room for their bytes."""

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BUFFERS = 4  # one is filled, one waits, one is uploaded, one is computed

# Of batches that are not written yet: a commit takes as long as several batches.
MAX_WAITING_BATCHES = 32
MAX_WAITING_BYTES = 64 << 20

Views = Sequence["Tensor"]


class Buffer:
    """The views of one batch, each way of preprocessing in one uint8 tensor (B, 3, H, W).

    Its memory is taken with the first picture and kept; pinned where a GPU copies from it.
    """

    def __init__(self, size: int, pinned: bool) -> None:
        self._size, self._pinned = size, pinned
        self._tensors: tuple[Tensor, ...] = ()

    def put(self, row: int, views: Views) -> None:
        """Copy the views of one picture into a row: the one copy that a batch costs.

        NumPy copies: torch would open a team of threads for this one, and with more threads than
        CPUs OpenMP lets those that compute sleep at each barrier.
        """
        if not self._tensors:
            self._tensors = tuple(self._like(view) for view in views)
        for tensor, view in zip(self._tensors, views, strict=True):
            tensor[row].numpy()[:] = view.numpy()

    def first(self, count: int) -> "tuple[Tensor, ...]":
        """Give the first rows; they are good until the buffer is given back."""
        return tuple(tensor[:count] for tensor in self._tensors)

    def _like(self, view: "Tensor") -> "Tensor":
        shape = (self._size, *view.shape)
        return view.new_empty(shape, pin_memory=self._pinned)


class Ring:
    """A few buffers that go round; `take` waits for one that was given back."""

    def __init__(self, size: int, pinned: bool = False) -> None:
        self._free: SimpleQueue[Buffer] = SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(Buffer(size, pinned))

    def take(self) -> Buffer:
        """Take a buffer."""
        return self._free.get()

    def give(self, buffer: Buffer) -> None:
        """Give a buffer back."""
        self._free.put(buffer)


class Room:
    """Bounds what waits, in number and in bytes; whatever its size, one batch has room."""

    def __init__(self) -> None:
        self._batches = self._bytes = 0
        self._changed = threading.Condition()

    def take(self, size_bytes: int) -> None:
        """Wait until there is room for a batch."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(size_bytes))
            self._batches += 1
            self._bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        """Note that a batch is gone."""
        with self._changed:
            self._batches -= 1
            self._bytes -= size_bytes
            self._changed.notify_all()

    def _has_room(self, size_bytes: int) -> bool:
        if not self._batches:
            return True
        size_bytes += self._bytes
        return self._batches < MAX_WAITING_BATCHES and size_bytes <= MAX_WAITING_BYTES
