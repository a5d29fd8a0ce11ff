"""The local engine: one worker in this process, one shard after the other."""

import logging
from collections.abc import Iterator, Sequence

from flows.engines.engine import ProgressListener, ShardResult
from flows.engines.worker import Worker, WorkerSpec
from pipeline.clean.shard import AttemptLost
from shards.inputs.listing import InputShard

_log = logging.getLogger(__name__)


class LocalEngine:
    """Works in the driver's own process."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec

    def run(self, shards: Sequence[InputShard], watch: ProgressListener) -> Iterator[ShardResult]:
        """Clean each shard in turn; see `Engine.run`."""
        worker = Worker(self._spec, on_progress=watch.under_way)
        for shard in shards:
            yield _process(worker, shard)


def _process(worker: Worker, shard: InputShard) -> ShardResult:
    while True:  # lost attempts lead to safe mode, and at last to quarantine
        try:
            return worker.process(shard)
        except AttemptLost as error:
            _log.warning("an attempt was lost, and is made again: %s", error)
