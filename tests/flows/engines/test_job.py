"""A job of any kind: what a pool asks of it, and nothing more."""

import pickle

from flows.engines.clean_worker import CleanRecords
from flows.engines.engine import ShardDone, ShardResult
from flows.engines.job import Grant, Records, ShardJob
from flows.stages.clean import CleanJob
from shards.inputs.shard import InputShard


def test_a_job_travels_is_opened_and_does_shards(job: CleanJob) -> None:
    cleaning: ShardJob[InputShard, ShardResult] = pickle.loads(pickle.dumps(job.spec))
    records: Records[InputShard, ShardResult] = CleanRecords(job.run)
    worker = cleaning.open(Grant("w1"))
    assert worker.device == "cpu"
    assert worker.counts == (0, 0)
    result = worker.process(job.pending[0])
    assert isinstance(result, ShardDone)
    assert records.look_up(job.pending[0]) == result
