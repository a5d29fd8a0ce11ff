"""The occasion of a verification on many machines: each shard is read and hashed by a worker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flows.engines.job import Grant
from flows.engines.start_checks import Demands
from flows.recipe import EngineConfig
from shards.run.attempt import Ending
from shards.run.run import Run
from shards.run.verify.problem import Problem
from shards.run.verify.run import Report, ShardChecker, Verification, verify_run
from shards.run.verify.views import read_view, view_records
from shards.run.view import View


class ShardLost(RuntimeError):  # noqa: N818 - reads as what happened
    """A shard that costs every worker that reads it."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class ShardToCheck:
    """A committed shard, by name."""

    shard: str


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """What a worker needs to know to check shards of a run."""

    run_url: str

    def open(self, _grant: Grant) -> "CheckWorker":
        """Open the run, and read its views, where the shards are read."""
        return CheckWorker(Run.open(self.run_url))


class CheckWorker:
    """Reads and hashes the files of one shard after the other."""

    device = "cpu"
    counts = (0, 0)
    samples = 0

    def __init__(self, run: Run) -> None:
        views = (read_view(run, name) for name in view_records(run))
        self._checker = ShardChecker(run, [view for view in views if isinstance(view, View)])

    def expect(self, shard: ShardToCheck | None) -> None:
        """Begin nothing ahead: the disk would only be shared."""

    def process(self, shard: ShardToCheck) -> tuple[Problem, ...]:
        """List what is wrong with a shard."""
        return tuple(self._checker.check(shard.shard))


class CheckRecords:
    """A check leaves nothing behind: it is done again by whoever is left."""

    def ended(self, shard: ShardToCheck, worker: str, ending: Ending, why: str = "") -> None:
        """Write nothing down."""

    def look_up(self, _shard: ShardToCheck) -> None:
        """Know of no result."""

    def failed(self, shard: ShardToCheck, why: str) -> tuple[Problem, ...]:
        """End the verification."""
        raise ShardLost(f"shard {shard.shard} cannot be checked: {why}")

    def samples(self, _result: tuple[Problem, ...]) -> int:
        """Count nothing."""
        return 0


class _NoListener:
    def under_way(self, samples: int, size_bytes: int) -> None:
        """Show nothing of what is begun."""


def verify_on_ray(run: Run, address: str | None, report: Report) -> Verification:
    """Verify a run like `verify_run`, its shards read by the workers of a Ray cluster."""
    from flows.engines.ray.pool import ray_pool  # seconds to import

    config = EngineConfig(address=address, gpus_per_actor=0, device="cpu")

    def check_all(
        _: ShardChecker, shards: Sequence[str], report: Report
    ) -> Iterator[list[Problem]]:
        url = run.store.url()
        demands = Demands(run_url=url, inputs=(), writes=False)
        with ray_pool(CheckSpec(url), CheckRecords(), demands, config) as pool:
            tasks = [ShardToCheck(shard) for shard in shards]
            for done, problems in enumerate(pool.run(tasks, _NoListener()), 1):
                report(done, len(shards))
                yield list(problems)

    return verify_run(run, report, check_all)
