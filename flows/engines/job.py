"""What a pool can be given to do: any work that is done shard by shard, by workers that are opened.

Cleaning is one, hashing another. The job travels to each worker and is opened there; its records
stay with the driver.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from shards.run.attempt import Ending


class Named(Protocol):
    """A shard, or what stands for it: its name is all that a pool looks at."""

    @property
    def shard(self) -> str:
        """The shard's name."""


Shard = TypeVar("Shard", bound=Named)
Result = TypeVar("Result")
ShardTaken = TypeVar("ShardTaken", contravariant=True)
ResultMade = TypeVar("ResultMade", covariant=True)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a worker is told where it is opened: its name, and the GPUs and CPUs set aside for it.

    `cpus` None: all that its process may use.
    """

    worker: str | None = None
    gpus: float = 0.0
    cpus: int | None = None


class ShardWorker(Protocol[ShardTaken, ResultMade]):
    """Does one shard after the other; its counts may be read from another thread."""

    @property
    def counts(self) -> tuple[int, int]:
        """Samples and bytes done of the shard under way."""

    @property
    def samples(self) -> int:
        """Samples done since it was opened."""

    @property
    def device(self) -> str:
        """The name of the GPU that it computes on, or `cpu`."""

    def expect(self, shard: ShardTaken | None) -> None:
        """Hear, from another thread, which shard is next; it may be begun. None takes that back."""

    def process(self, shard: ShardTaken) -> ResultMade:
        """Do one shard; raises AttemptLost where another worker should try."""


class ShardJob(Protocol[ShardTaken, ResultMade]):
    """A description of the work, small enough to send anywhere."""

    def open(self, grant: Grant) -> ShardWorker[ShardTaken, ResultMade]:
        """Load what the work needs, on the machine where it is done."""


class Records(Protocol[ShardTaken, Result]):
    """What the driver writes down, and knows, of the shards of a job."""

    def ended(self, shard: ShardTaken, worker: str, ending: Ending, why: str = "") -> None:
        """Record, for a worker that cannot any more, how its attempt ended, if it had begun one."""

    def look_up(self, shard: ShardTaken) -> Result | None:
        """Return the result of a shard that has one already, whoever has done it."""

    def failed(self, shard: ShardTaken, why: str) -> Result:
        """Make the result of a shard that is not tried again."""

    def samples(self, result: Result) -> int:
        """Count the samples of a result, for the worker's rate."""
