"""Screening as a job of an engine: no model is loaded, and no GPU asked for."""

from collections.abc import Callable
from dataclasses import dataclass

from flows.engines.clean_worker import CleanWorker
from flows.engines.job import Grant
from flows.engines.pace import Pace
from pipeline.clean.line.screening import ShardScreener
from pipeline.clean.screen import ScreenConfig
from shards.run.run import Run


@dataclass(frozen=True, slots=True)
class ScreenSpec:
    """All that a worker needs to know, small enough to send anywhere."""

    run_url: str
    config: ScreenConfig
    pace: Pace
    weights_bytes: int = 0

    def open(
        self, grant: Grant, on_progress: Callable[[int, int], None] | None = None
    ) -> "ScreenWorker":
        """Make a worker on the machine where it works."""
        return ScreenWorker(self, grant, on_progress)


class ScreenWorker(CleanWorker):
    """Screens shards of one run; a shard's results are told as those of cleaning are."""

    def __init__(
        self,
        spec: ScreenSpec,
        grant: Grant,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        import torch

        pace, about = spec.pace.on(torch.device("cpu"), grant.cpus), {"device": "cpu"}
        run = Run.open(spec.run_url)
        screener = ShardScreener(run, spec.config, pace, about, grant.worker)
        self._begin(screener, "cpu", grant, on_progress)
