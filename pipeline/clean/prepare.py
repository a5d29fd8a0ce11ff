"""Prepare samples for the models: ahead of them in threads, or one by one under guard.

Pictures are decoded once. At most `decode_threads` are decoded at a time, and what waits is bounded
in number and in bytes: neither a shard of huge files nor one of rejected samples fills the memory.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING

from pipeline.clean.screen import Decode, ScreenedSample
from pipeline.media.ahead import Stalled, read_ahead
from pipeline.media.decode import decode
from pipeline.media.guard import Guard
from shards.inputs.reader import RawSample
from shards.schema import ScoreRow, TextRow

if TYPE_CHECKING:
    from torch import Tensor

    from models.guests.picture import Prepared

AHEAD_OF_THREAD = 8  # samples: threads never wait, and their views fill no memory

# In safe mode a stall must not be taken for a shard's before it is known for a picture's.
GUARD_SHARE = 0.2  # of the stall time-out, for one try of a picture
GUARD_MOST_S = 60.0


class DecodeStalled(RuntimeError):  # noqa: N818 - reads as what happened
    """A picture whose decoding does not end, in a thread that cannot be stopped, only left."""


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """How fast to work; none of it changes the output."""

    batch_size: int = 16
    decode_threads: int = 2
    stall_timeout_s: float = 600


@dataclass(slots=True)
class PreparedSample:
    """A screened sample with what the models and the writer need, the decoded picture let go."""

    screened: ScreenedSample
    views: tuple["Tensor", ...] = ()  # uint8 (3, H, W), for models that share a size or for each
    image: bytes = b""  # as the clean shard will hold it
    texts: list[TextRow] = field(default_factory=list)
    prepared: "tuple[Prepared, ...]" = ()  # for each guest, or those that prepare alike
    scores: list[ScoreRow] = field(default_factory=list)  # that are no columns of the texts

    @property
    def held_bytes(self) -> int:
        """The bytes that guests' pictures take while they wait."""
        return sum(picture.held_bytes for picture in self.prepared)


Prepare = Callable[[RawSample, Decode], PreparedSample]
Stream = Iterator[tuple[PreparedSample, int]]  # each with the input's bytes read so far


@contextmanager
def in_threads(
    raws: Iterable[RawSample],
    prepare: Prepare,
    pace: ExecutionConfig,
    stop: Future[None] | None = None,
) -> Iterator[Stream]:
    """Prepare samples at most two batches ahead of who takes them, in the order of the input.

    Raises DecodeStalled where one is not ready within the stall time-out, and Stopped where it
    would be waited for after `stop` is done.
    """
    ahead = read_ahead(
        _with_size(raws),
        lambda sized: prepare(sized[0], decode),
        itemgetter(1),
        min(2 * pace.batch_size, AHEAD_OF_THREAD * pace.decode_threads),
        threads=pace.decode_threads,
        timeout_s=pace.stall_timeout_s,
        stop=stop,
    )
    with closing(ahead):  # so that an error ends the threads
        try:
            yield ((sample, raw.end_offset) for (raw, _), sample in ahead)
        except Stalled as stall:
            raw, _ = stall.item
            raise DecodeStalled(
                f"the picture of {raw.key!r} is not decoded after {pace.stall_timeout_s:g} s"
            ) from None


@contextmanager
def under_guard(
    raws: Iterable[RawSample], prepare: Prepare, pace: ExecutionConfig
) -> Iterator[Stream]:
    """Prepare samples one by one, each picture decoded in a child process."""
    with Guard(min(GUARD_MOST_S, GUARD_SHARE * pace.stall_timeout_s)) as guard:
        yield ((prepare(raw, guard.decode), raw.end_offset) for raw in raws)


def _with_size(raws: Iterable[RawSample]) -> Iterator[tuple[RawSample, int]]:
    """Yield each sample with the bytes that it takes, in the input or, if packed there, here."""
    before = 0
    for raw in raws:
        held = len(raw.image or b"") + len(raw.text or b"") + len(raw.meta or b"")
        yield raw, max(raw.end_offset - before, held)
        before = raw.end_offset
