"""The local engine: one worker in this process, one shard after the other."""

from collections.abc import Iterator, Sequence

from flows.engines.engine import Result, ShardFailed, Watch, is_shard_fault
from flows.engines.worker import Worker, WorkerSpec
from shards.listing import InputShard


class LocalEngine:
    """Works in the driver's own process."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec

    def run(self, shards: Sequence[InputShard], watch: Watch) -> Iterator[Result]:
        """Clean each shard in turn; see `Engine.run`."""
        worker = Worker(self._spec, on_progress=watch.under_way)
        for shard in shards:
            try:
                yield worker.process(shard)
            except Exception as error:
                if not is_shard_fault(error):
                    raise
                yield ShardFailed(shard, str(error))
