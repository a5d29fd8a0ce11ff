"""Steps of decoding as CUDA graphs: recorded once for each number of images, then played.

A step has some hundred small kernels, and a GPU does them faster than Python can name them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.blip.text import TextDecoder
from models.decoding.config import Decoding
from models.decoding.draft import DecoderStart, Draft, Rules, advance
from models.decoding.generate import bucket
from models.decoding.sampling import enough_rounds

_WARM_UPS = 2  # libraries choose kernels and take their memory in the first runs

Play = Callable[[], None]
Record = Callable[[Play, Play], Play]
"""`record(step, reset)` runs a step a few times, `reset` before each, and returns what repeats it.

What repeats it calls no Python again: numbers that Python held when it was recorded are fixed.
"""


class RecordingError(RuntimeError):
    """A step that this GPU, or this build of torch, cannot record."""


class CudaRecorder:
    """Records on the GPU; the graphs share the memory of what a step makes and drops."""

    def __init__(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()

    def __call__(self, step: Play, reset: Play) -> Play:
        """Record a step."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                reset()
                step()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # another thread may copy pictures to the GPU meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        return graph.replay


class Graphs:
    """Takes drafts from token to token by recorded steps, in memory that stays from call to call.

    Room is made for the most images that were asked for, and a graph for each bucket up to that.
    """

    look_every = 4

    def __init__(
        self, decoder: TextDecoder, start: DecoderStart, decoding: Decoding, record: Record
    ) -> None:
        self.decoder = decoder
        self.rules = Rules(start, decoding, enough_rounds(decoding.top_p))
        self._record = record
        self._room: Draft | None = None
        self._plays: dict[int, Play] = {}

    def make(self, images: Tensor, copies: int) -> Draft:
        """Return room for `copies` texts of at least the images (B, P, V)."""
        room, size = self._room, bucket(len(images))
        fits = room is not None and (
            room.images >= size
            and room.copies == copies
            and room.cache.images.shape[3] == images.shape[1]
        )
        if not fits:
            # the old room goes first, and none is left behind if the GPU cannot hold the new one
            room, self._room, self._plays = None, None, {}
            room = Draft.make(self.decoder, images[:1].expand(size, -1, -1), copies, self.rules)
            self._plays = self._record_all(room)
            self._room = room
        assert room is not None
        return room.first(size)

    def advance(self, draft: Draft) -> None:
        """Read the last token of each text, and choose what follows."""
        self._plays[draft.images]()

    def _record_all(self, room: Draft) -> dict[int, Play]:
        if self.rules.decoding.max_tokens == 1:
            return {}  # the prompt alone decides
        sizes = [1 << n for n in range(room.images.bit_length())]
        try:
            return {size: self._record_step(room.first(size)) for size in reversed(sizes)}
        except torch.OutOfMemoryError:
            raise  # smaller batches may do
        except RuntimeError as error:
            raise RecordingError(f"a step of decoding cannot be recorded: {error}") from error

    def _record_step(self, draft: Draft) -> Play:
        return self._record(
            lambda: advance(self.decoder, draft, self.rules),
            lambda: draft.begin(self.rules.start),
        )
