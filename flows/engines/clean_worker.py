"""The worker inside every engine: models loaded once, then shard after shard."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from flows.engines.engine import (
    ShardDone,
    ShardFailed,
    ShardQuarantined,
    ShardResult,
    is_shard_fault,
)
from models.checkpoints import weights
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from pipeline.clean.prepare import ExecutionConfig
from pipeline.clean.shard import CleanConfig, ShardCleaner
from shards.inputs.listing import InputShard
from shards.run.attempt import Quarantine
from shards.run.run import Run


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker needs to know, small enough to send anywhere.

    The config is resolved: its dtype is not `auto`, and its models are pinned.
    """

    run_url: str
    config: CleanConfig
    pace: ExecutionConfig


class Worker:
    """Cleans shards of one run; `counts` may be read from another thread meanwhile."""

    def __init__(
        self,
        spec: WorkerSpec,
        on_progress: Callable[[int, int], None] | None = None,
        name: str | None = None,
    ) -> None:
        self.counts = (0, 0)  # samples and bytes done of the shard under way
        self._name = name
        self._on_progress = on_progress
        config = spec.config
        device = "cuda" if torch.cuda.is_available() else "cpu"
        captioner = BlipCaptioner.load(
            weights.resolve(config.caption.model, config.caption.revision),
            decoding=config.caption,
            seed=config.seed,
            dtype=config.dtype,
            device=device,
        )
        scorer = Filter.load(
            weights.resolve(config.score.model, config.score.revision),
            max_tokens=config.score.max_tokens,
            dtype=config.dtype,
            device=device,
        )
        self._cleaner = ShardCleaner(Run.open(spec.run_url), config, captioner, scorer, spec.pace)

    def process(self, shard: InputShard) -> ShardResult:
        """Clean one shard and commit it, or find that it was put aside.

        Raises AttemptLost, and what is no single shard's fault.
        """
        try:
            done = self._cleaner.clean(shard, self._note, self._name)
        except Exception as error:
            if not is_shard_fault(error):
                raise
            return ShardFailed(shard, str(error))
        finally:
            self.counts = (0, 0)
        if isinstance(done, Quarantine):
            return ShardQuarantined(shard, done.why)
        return ShardDone(shard, done.counts, done.state.damaged)

    def _note(self, samples: int, size_bytes: int) -> None:
        self.counts = (samples, size_bytes)
        if self._on_progress:
            self._on_progress(samples, size_bytes)
