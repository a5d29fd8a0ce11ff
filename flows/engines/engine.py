"""What every engine takes and returns, and which faults are one shard's alone."""

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shards.errors import CapfiltError
from shards.inputs.shard import InputChanged, InputShard
from shards.run.commit import Counts

# The machine's trouble, not the shard's: going on would only fail every other shard too.
_FATAL_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM}


class EngineError(CapfiltError, RuntimeError):
    """An engine that cannot go on, and why."""


@dataclass(frozen=True, slots=True)
class ShardDone:
    """A shard that is committed, and how long its worker took; unknown where another did it.

    `ago_s` is when it was committed, before this was said, by the worker's own clock.
    """

    shard: InputShard
    counts: Counts
    damaged: bool
    worker: str = field(default="", compare=False)
    seconds: float | None = field(default=None, compare=False)
    ago_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class ShardFailed:
    """A shard that stays pending, and why; the others go on."""

    shard: InputShard
    why: str


@dataclass(frozen=True, slots=True)
class ShardQuarantined:
    """A shard that was put aside, and why: the run can end without it."""

    shard: InputShard
    why: str


ShardResult = ShardDone | ShardFailed | ShardQuarantined


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What one worker was, and what it came to; the rate is that of its time since it was ready."""

    host: str
    device: str
    shards: int
    samples: int
    samples_per_s: float
    log: str = ""  # where all that it writes lies, on its host


class ProgressListener(Protocol):
    """Follows how far the work is; called every few seconds, from the driver's own thread."""

    def under_way(self, samples: int, size_bytes: int) -> None:
        """Report samples and input bytes of shards that are begun, but not yet done."""


class Engine(Protocol):
    """Works on shards."""

    @property
    def reports(self) -> Sequence[WorkerReport]:
        """What each worker was, and what it has come to by now."""

    def run(self, shards: Sequence[InputShard], watch: ProgressListener) -> Iterator[ShardResult]:
        """Yield one result for each shard, in the order in which they end.

        Raises what is no single shard's fault: a full disk, a bug, an engine that cannot start.
        """


def is_shard_fault(error: BaseException) -> bool:
    """Check whether an error concerns one shard only, so that the others may go on."""
    if isinstance(error, InputChanged):
        return True
    return isinstance(error, OSError) and error.errno not in _FATAL_ERRNO
