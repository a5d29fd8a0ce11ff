"""An attempt ends once: by its commit, or by the first error that any stage met."""

from pathlib import Path

import pytest

from pipeline.clean.line.attempt import GivenBack, ShardAttempt, Target
from shards.inputs.reader import ShardReader
from shards.inputs.text import TXT
from shards.run.attempt import Ending, end_attempt, read_attempts, start_attempt
from shards.run.commit import read_commit
from shards.run.run import Run
from tests.support.bench import Bench


@pytest.fixture
def run(bench: Bench, shard: Path) -> Run:
    return bench.run(shard)[0]


@pytest.fixture
def attempt(bench: Bench, run: Run) -> ShardAttempt:
    target = Target(run, bench.config.judge, bench.config.write, 0, "w1", {"batch_size": 7})
    return ShardAttempt(target, run.inputs[0])


def read(attempt: ShardAttempt) -> None:
    """Read all of the shard, and write nothing."""
    with Path(attempt.shard.url).open("rb") as file:
        reader = ShardReader(file, TXT)
        assert len(list(reader)) == 23
        attempt.has_read(reader)


def endings(run: Run) -> list[tuple[Ending | None, str | None]]:
    return [(one.ending, one.detail) for one in read_attempts(run, run.shards[0])]


def test_a_commit_is_the_last_word(attempt: ShardAttempt, run: Run) -> None:
    assert attempt.look()
    attempt.begin()
    read(attempt)
    attempt.close(0.0)
    attempt.fail(KeyboardInterrupt())
    attempt.record_end()
    done = read_commit(run, run.shards[0])
    assert attempt.result() == done is not None
    assert done.environment["batch_size"] == 7
    assert endings(run) == [(None, None)]
    assert not list(Path(run.store.path("x")).parent.glob(".tmp-*"))


def test_the_first_error_counts(attempt: ShardAttempt, run: Run) -> None:
    attempt.look()
    attempt.begin()
    attempt.fail(ValueError("first"))
    attempt.fail(MemoryError("second"))
    assert attempt.stopped.done()
    attempt.close(0.0)
    with pytest.raises(ValueError, match="first"):
        attempt.result()
    assert endings(run) == [(Ending.FAILED, "first")]
    assert attempt.closed.is_set()
    assert not run.store.list("data")
    assert not list(Path(run.store.path("x")).parent.glob(".tmp-*"))


def test_one_that_is_given_back_is_released(attempt: ShardAttempt, run: Run) -> None:
    attempt.look()
    attempt.begin()
    attempt.fail(GivenBack("another is to do it"))
    attempt.close(0.0)
    assert attempt.is_given_back
    assert endings(run) == [(Ending.RELEASED, "another is to do it")]


def test_what_was_not_begun_leaves_no_record(attempt: ShardAttempt, run: Run) -> None:
    attempt.fail(GivenBack())
    attempt.close(0.0)
    assert attempt.closed.is_set()
    assert endings(run) == []


@pytest.mark.parametrize(
    ("losses", "alone", "safe"), [(0, False, False), (1, True, False), (3, True, True)]
)
def test_losses_isolate_a_shard(
    attempt: ShardAttempt, run: Run, losses: int, alone: bool, safe: bool
) -> None:
    for _ in range(losses):
        lost = start_attempt(run, run.shards[0])
        end_attempt(run, run.shards[0], lost, Ending.DIED)
    assert attempt.look()
    assert (attempt.alone, attempt.safe) == (alone, safe)
