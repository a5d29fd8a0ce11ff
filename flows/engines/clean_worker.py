"""Cleaning as a job of an engine: models loaded once, then shard after shard."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch

from flows.engines.engine import (
    ShardDone,
    ShardFailed,
    ShardQuarantined,
    ShardResult,
    is_shard_fault,
)
from flows.engines.job import Grant
from flows.engines.pace import Pace
from models.blip.image_encoder import See
from models.captioners.blip import BlipCaptioner
from models.captioners.opening import open_captioner
from models.devices import (
    DeviceChoice,
    check_dtype,
    check_memory,
    choose_device,
    describe_device,
    keep_freed_memory,
    name_device,
)
from models.roles.role import LoadedModel
from models.scorers.blip import BlipScorer
from models.scorers.opening import open_scorer
from pipeline.clean.config import CleanConfig
from pipeline.clean.line.screening import ShardScreener
from pipeline.clean.shard import ShardCleaner
from shards.inputs.shard import InputShard
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
    weights_bytes: int = 0  # of all models, in the run's dtype

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
        keep_freed_memory()
        dtype, seed = config.dtype, config.seed
        captioners = [
            open_captioner(section, seed=seed, dtype=dtype, device=device)
            for section in config.captioners
        ]
        scorers = [open_scorer(section, dtype=dtype, device=device) for section in config.scorers]
        most = [n for section in config.captioners if (n := section.most_at_once) is not None]
        run, hardware = Run.open(spec.run_url), describe_device(device)
        pace = spec.pace.on(device, grant.cpus)
        pace = dataclasses.replace(pace, batch_size=min([pace.batch_size, *most]))
        warm_up_s = 0.0
        if device.type == "cuda":
            warm_up_s = compile_towers(_own(captioners, scorers), pace.batch_size)
        cleaner = ShardCleaner(
            run,
            config,
            captioners,
            scorers,
            pace,
            hardware,
            device=device,
            worker=grant.worker,
        )
        self._begin(cleaner, name_device(device), grant, on_progress)
        self.warm_up_s = warm_up_s

    def _begin(
        self,
        cleaner: ShardCleaner | ShardScreener,
        device: str,
        grant: Grant,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.counts = (0, 0)  # samples and bytes done of the shard under way
        self.samples = 0  # done since it was opened, in every attempt
        self.warm_up_s = 0.0  # of compiling, before the first shard
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
        ago_s = max(time.time() - datetime.fromisoformat(done.ended).timestamp(), 0.0)
        damaged = done.state.damaged
        return ShardDone(shard, done.counts, damaged, self._name or "", seconds, ago_s)

    def _note(self, samples: int, size_bytes: int) -> None:
        self.samples += samples - self.counts[0]
        self.counts = (samples, size_bytes)
        if self._on_progress:
            self._on_progress(samples, size_bytes)


def compile_towers(
    models: Sequence[LoadedModel[Any]],
    count: int,
    compiler: Callable[[See], See] = torch.compile,
) -> float:
    """Compile the models' vision towers for batches of `count`; return the seconds that it took.

    Where the first cannot be compiled it is told, and all are run as they are.
    """
    begun = time.monotonic()
    for model in models:
        model.compile(compiler)
        with suppress(torch.OutOfMemoryError):  # batches are halved until they fit
            model.warm_up(count)
        if not model.is_compiled:
            break  # what ails the compiler would be told of each
    return time.monotonic() - begun


def _own(captioners: Sequence[object], scorers: Sequence[object]) -> list[LoadedModel[Any]]:
    """Pick BLIP's networks; a guest's is run as its maker has it."""
    models = (*captioners, *scorers)
    return [model.role for model in models if isinstance(model, BlipCaptioner | BlipScorer)]


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
