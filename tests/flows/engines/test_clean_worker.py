"""The worker: models loaded once, then shard after shard."""

import pickle

from flows.engines.engine import ShardDone, ShardQuarantined
from flows.engines.worker import Worker
from flows.stages.clean import CleanJob
from shards.run.attempt import Ending, end_attempt, read_attempts, start_attempt
from shards.run.commit import read_commit


def test_a_worker_commits_what_it_cleans(job: CleanJob) -> None:
    seen: list[tuple[int, int]] = []
    worker = Worker(job.spec, on_progress=lambda *counts: seen.append(counts), name="w7")
    for shard in job.pending[:2]:
        result = worker.process(shard)
        commit = read_commit(job.run, shard.shard)
        assert commit is not None
        assert result == ShardDone(shard, commit.counts, damaged=False)
        assert [attempt.worker for attempt in read_attempts(job.run, shard.shard)] == ["w7"]
    assert [samples for samples, _ in seen] == [2, 4, 2, 4]


def test_counts_are_those_of_the_shard_at_work_alone(job: CleanJob) -> None:
    seen: list[tuple[int, int]] = []
    worker = Worker(job.spec, on_progress=lambda *_: seen.append(worker.counts))
    assert worker.counts == (0, 0)
    worker.process(job.pending[0])
    assert [samples for samples, _ in seen] == [2, 4]
    assert worker.counts == (0, 0)


def test_a_shard_that_is_committed_already_is_not_done_again(job: CleanJob) -> None:
    worker = Worker(job.spec)
    first = worker.process(job.pending[0])
    assert worker.process(job.pending[0]) == first
    assert len(read_attempts(job.run, job.pending[0].shard)) == 1


def test_a_shard_whose_safe_attempts_died_is_put_aside(job: CleanJob) -> None:
    shard = job.pending[0]
    for _ in range(2):
        attempt = start_attempt(job.run, shard.shard, safe=True)
        end_attempt(job.run, shard.shard, attempt, Ending.DIED, "killed by signal 9")
    result = Worker(job.spec).process(shard)
    assert isinstance(result, ShardQuarantined)
    assert "killed by signal 9" in result.why
    assert read_commit(job.run, shard.shard) is None


def test_a_spec_is_small_enough_to_send(job: CleanJob) -> None:
    sent = pickle.dumps(job.spec)
    assert pickle.loads(sent) == job.spec
    assert len(sent) < 10_000
