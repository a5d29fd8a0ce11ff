"""The local engine: one worker in this process, one shard after the other."""

import logging
import platform
import time
from collections.abc import Iterator, Sequence

from flows.engines.clean_worker import CleanSpec, CleanWorker
from flows.engines.ending import end_at_once
from flows.engines.engine import ProgressListener, ShardDone, ShardResult, WorkerReport
from flows.engines.job import Grant
from flows.engines.screen_worker import ScreenSpec
from flows.run_log.events import tell_ready
from pipeline.clean.line.attempt import AttemptLost
from shards.inputs.shard import InputShard

_log = logging.getLogger(__name__)


class LocalEngine:
    """Works in the driver's own process."""

    def __init__(self, spec: CleanSpec | ScreenSpec) -> None:
        self._spec = spec
        self.reports: tuple[WorkerReport, ...] = ()

    def run(self, shards: Sequence[InputShard], watch: ProgressListener) -> Iterator[ShardResult]:
        """Clean each shard in turn; see `Engine.run`."""
        worker = self._spec.open(Grant(), watch.under_way)
        tell_ready("", platform.node(), worker.device, warm_up_s=worker.warm_up_s)
        ready_at, done, samples = time.monotonic(), 0, 0
        try:
            for shard, following in zip(shards, [*shards[1:], None], strict=True):
                if following is not None:
                    worker.expect(following)
                result = _process(worker, shard)
                if isinstance(result, ShardDone):
                    done, samples = done + 1, samples + result.counts.samples_in
                rate = round(samples / (time.monotonic() - ready_at), 2)
                self.reports = (WorkerReport(platform.node(), worker.device, done, samples, rate),)
                yield result
        finally:
            if not worker.close():
                end_at_once()


def _process(worker: CleanWorker, shard: InputShard) -> ShardResult:
    while True:  # lost attempts lead to safe mode, and at last to quarantine
        try:
            return worker.process(shard)
        except AttemptLost as error:
            _log.warning("an attempt was lost, and is made again: %s", error)
