"""The local engine: one shard after the other, in this process."""

import errno
from pathlib import Path

import pytest

from flows.engines.engine import ShardDone, ShardFailed, ShardQuarantined
from flows.engines.local import LocalEngine
from flows.stages.clean import CleanJob
from shards.run.attempt import DEATHS_TO_QUARANTINE, SAFE_FROM, read_attempts
from shards.run.commit import read_commits


class Watch:
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def under_way(self, samples: int, size_bytes: int) -> None:
        self.seen.append((samples, size_bytes))


def test_shards_are_done_in_order_and_progress_is_told(job: CleanJob) -> None:
    watch = Watch()
    results = []
    engine = LocalEngine(job.spec)
    for result in engine.run(job.pending, watch):
        assert isinstance(result, ShardDone)
        assert result.shard.shard in read_commits(job.run)
        results.append(result)
    assert [result.shard for result in results] == list(job.pending)
    assert [samples for samples, _ in watch.seen] == [2, 4] * 3
    (report,) = engine.reports
    assert (report.device, report.shards, report.samples) == ("cpu", 3, 12)
    for half, whole in zip(watch.seen[::2], watch.seen[1::2], strict=True):
        assert 0 < half[1] < whole[1] <= job.pending[0].size_bytes


def test_a_shard_that_cannot_be_read_fails_alone(job: CleanJob) -> None:
    Path(job.pending[0].url).unlink()
    first, *others = LocalEngine(job.spec).run(job.pending, Watch())
    assert isinstance(first, ShardFailed)
    assert "No such file" in first.why
    assert all(isinstance(result, ShardDone) for result in others)


def test_the_machines_trouble_ends_the_run(job: CleanJob) -> None:
    class FullDisk(Watch):
        def under_way(self, samples: int, size_bytes: int) -> None:
            raise OSError(errno.ENOSPC, f"No space left after {samples} of {size_bytes}")

    with pytest.raises(OSError, match="No space left"):
        list(LocalEngine(job.spec).run(job.pending, FullDisk()))
    assert read_commits(job.run) == {}


def test_a_shard_whose_attempts_are_lost_is_put_aside_at_last(job: CleanJob) -> None:
    class NoMemory(Watch):
        def under_way(self, samples: int, size_bytes: int) -> None:
            raise MemoryError(f"after {samples} samples, {size_bytes} bytes")

    (result,) = LocalEngine(job.spec).run(job.pending[:1], NoMemory())
    assert isinstance(result, ShardQuarantined)
    attempts = read_attempts(job.run, result.shard.shard)
    assert [attempt.safe for attempt in attempts] == [False] * SAFE_FROM + [
        True
    ] * DEATHS_TO_QUARANTINE
