"""A batch on its way from stage to stage."""

from dataclasses import dataclass, field

from pipeline.clean.line.attempt import ShardAttempt
from pipeline.clean.line.ring import Buffer
from pipeline.clean.prepare import PreparedSample

# Bounds on a batch: neither a shard of huge files nor one of rejected samples may fill the memory.
MAX_BATCH_BYTES = 64 << 20
MAX_BATCH_ROWS = 1_000
MAX_HELD_BYTES = 256 << 20


@dataclass(slots=True)
class Batch:
    """Samples in the order of the input, rejected ones too; their pictures stand in a buffer."""

    attempt: ShardAttempt
    begin: int  # the shard's bytes read before it, and with it
    offset: int = 0
    samples: list[PreparedSample] = field(default_factory=list)
    pictures: list[PreparedSample] = field(default_factory=list)
    buffer: Buffer | None = None
    image_bytes: int = 0
    held_bytes: int = 0  # of what guests prepared, until it is seen

    def add(self, sample: PreparedSample, offset: int) -> None:
        """Take the next sample; its views move into the buffer."""
        self.samples.append(sample)
        self.offset = offset
        self.image_bytes += len(sample.image)  # more than was read, of a packed input
        if sample.screened.ok and self.buffer is not None:
            self.buffer.put(len(self.pictures), sample.views)
            sample.views = ()
            self.pictures.append(sample)
            self.held_bytes += sample.held_bytes

    def let_go(self) -> None:
        """Let go of the pictures, once they are seen."""
        for sample in self.pictures:
            sample.prepared = ()

    @property
    def size_bytes(self) -> int:
        """What it holds beside the buffer."""
        return max(self.offset - self.begin, self.image_bytes)

    def is_full(self, size: int) -> bool:
        """Whether it has `size` pictures, or is as heavy as a batch may be."""
        heavy = len(self.samples) == MAX_BATCH_ROWS or self.size_bytes > MAX_BATCH_BYTES
        heavy |= self.held_bytes > MAX_HELD_BYTES
        return heavy or len(self.pictures) == size


@dataclass(frozen=True, slots=True)
class Drained:
    """All batches of a shard have passed."""

    attempt: ShardAttempt


@dataclass(frozen=True, slots=True)
class Written:
    """Rows of a shard are written: the samples and input bytes done by now."""

    attempt: ShardAttempt
    samples: int
    offset: int


@dataclass(frozen=True, slots=True)
class Closed:
    """A shard is committed, or its record says why not."""

    attempt: ShardAttempt


Message = Batch | Drained | Written | Closed
