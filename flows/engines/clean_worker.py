"""Cleaning as a job of an engine: models loaded once, then shard after shard."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from flows.engines.engine import (
    ShardDone,
    ShardFailed,
    ShardQuarantined,
    ShardResult,
    is_shard_fault,
)
from flows.engines.job import Grant
from flows.engines.pace import Pace
from models.checkpoints import locate
from models.devices import (
    DeviceChoice,
    check_dtype,
    check_memory,
    choose_device,
    describe_device,
    name_device,
)
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from pipeline.clean.line.screening import ShardScreener
from pipeline.clean.shard import CleanConfig, ShardCleaner
from shards.inputs.listing import InputShard
from shards.run.attempt import Ending, Quarantine, end_attempts_of, read_quarantined
from shards.run.commit import read_commit
from shards.run.run import Run


@dataclass(frozen=True, slots=True)
class CleanSpec:
    """All that a worker needs to know, small enough to send anywhere.

    The config is resolved: its dtype is not `auto`, and its models are pinned.
    """

    run_url: str
    config: CleanConfig
    pace: Pace
    device: DeviceChoice = "auto"
    weights_bytes: int = 0  # of both models, in the run's dtype

    def open(
        self, grant: Grant, on_progress: Callable[[int, int], None] | None = None
    ) -> "CleanWorker":
        """Load the models on the machine where they work."""
        return CleanWorker(self, grant, on_progress)


class CleanWorker:
    """Cleans shards of one run; `counts` may be read from another thread meanwhile."""

    def __init__(
        self,
        spec: CleanSpec,
        grant: Grant,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        config = spec.config
        device = choose_device(spec.device, granted=grant.gpus > 0)
        check_dtype(config.dtype, device)
        check_memory(device, spec.weights_bytes)
        captioner = BlipCaptioner.load(
            locate.resolve(config.caption.model, config.caption.revision),
            decoding=config.caption,
            seed=config.seed,
            dtype=config.dtype,
            device=device,
        )
        scorer = Filter.load(
            locate.resolve(config.score.model, config.score.revision),
            max_tokens=config.score.max_tokens,
            dtype=config.dtype,
            device=device,
        )
        run, hardware = Run.open(spec.run_url), describe_device(device)
        cleaner = ShardCleaner(
            run,
            config,
            captioner,
            scorer,
            spec.pace.on(device, grant.cpus),
            hardware,
            device=device,
            worker=grant.worker,
        )
        self._begin(cleaner, name_device(device), grant, on_progress)

    def _begin(
        self,
        cleaner: ShardCleaner | ShardScreener,
        device: str,
        grant: Grant,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.counts = (0, 0)  # samples and bytes done of the shard under way
        self.samples = 0  # done since it was opened, in every attempt
        self.device, self._cleaner = device, cleaner
        self._name, self._on_progress = grant.worker, on_progress

    def expect(self, shard: InputShard | None) -> None:
        """Read and decode a shard ahead, which is the next to process; None takes that back."""
        self._cleaner.expect(shard)

    def close(self) -> bool:
        """Give back what was begun ahead; whether no thread is caught in native code."""
        return self._cleaner.close()

    def process(self, shard: InputShard) -> ShardResult:
        """Clean one shard and commit it, or find that it was put aside.

        Raises AttemptLost, and what is no single shard's fault.
        """
        begun = time.monotonic()
        try:
            done = self._cleaner.clean(shard, self._note)
        except Exception as error:
            if not is_shard_fault(error):
                raise
            return ShardFailed(shard, str(error))
        finally:
            self.counts = (0, 0)
        if isinstance(done, Quarantine):
            return ShardQuarantined(shard, done.why)
        seconds = round(time.monotonic() - begun, 3)
        return ShardDone(shard, done.counts, done.state.damaged, self._name or "", seconds)

    def _note(self, samples: int, size_bytes: int) -> None:
        self.samples += samples - self.counts[0]
        self.counts = (samples, size_bytes)
        if self._on_progress:
            self._on_progress(samples, size_bytes)


@dataclass(frozen=True, slots=True)
class CleanRecords:
    """What the driver of a cleaning writes down: the ends of attempts that nobody else can."""

    run: Run

    def ended(self, shard: InputShard, worker: str, ending: Ending, why: str = "") -> None:
        """Record how a worker's attempt on a shard ended."""
        end_attempts_of(self.run, shard.shard, worker, ending, why)

    def look_up(self, shard: InputShard) -> ShardResult | None:
        """Return what a shard came to, if it is committed or put aside by now."""
        done = read_commit(self.run, shard.shard)
        if done is not None:
            return ShardDone(shard, done.counts, done.state.damaged)
        aside = read_quarantined(self.run).get(shard.shard)
        return ShardQuarantined(shard, aside.why) if aside else None

    def failed(self, shard: InputShard, why: str) -> ShardResult:
        """Make the result of a shard that stays pending."""
        return ShardFailed(shard, why)

    def samples(self, result: ShardResult) -> int:
        """Count the samples of a shard that is done."""
        return result.counts.samples_in if isinstance(result, ShardDone) else 0
