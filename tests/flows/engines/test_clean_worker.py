"""The worker: models loaded once, then shard after shard."""

import logging
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from flows.engines.clean_worker import CleanRecords, CleanWorker, compile_towers
from flows.engines.engine import ShardDone, ShardFailed, ShardQuarantined
from flows.engines.job import Grant
from flows.stages.clean import CleanJob
from models.checkpoints import locate
from models.roles.filter import Filter
from shards.run.attempt import (
    Ending,
    end_attempt,
    quarantine,
    read_attempts,
    start_attempt,
)
from shards.run.commit import read_commit


def test_a_worker_commits_what_it_cleans(job: CleanJob) -> None:
    seen: list[tuple[int, int]] = []
    worker = job.spec.open(Grant("w7"), lambda *counts: seen.append(counts))
    for shard in job.pending[:2]:
        result = worker.process(shard)
        commit = read_commit(job.run, shard.shard)
        assert commit is not None
        assert result == ShardDone(shard, commit.counts, damaged=False)
        assert [attempt.worker for attempt in read_attempts(job.run, shard.shard)] == ["w7"]
    assert [samples for samples, _ in seen] == [2, 4, 2, 4]
    assert worker.samples == 8  # for Ray's metrics, which are asked for now and then


def test_counts_are_those_of_the_shard_at_work_alone(job: CleanJob) -> None:
    seen: list[tuple[int, int]] = []
    worker: CleanWorker = job.spec.open(Grant(), lambda *_: seen.append(worker.counts))
    assert worker.counts == (0, 0)
    worker.process(job.pending[0])
    assert [samples for samples, _ in seen] == [2, 4]
    assert worker.counts == (0, 0)


def test_a_shard_that_is_committed_already_is_not_done_again(job: CleanJob) -> None:
    worker = job.spec.open(Grant())
    first = worker.process(job.pending[0])
    assert worker.process(job.pending[0]) == first
    assert len(read_attempts(job.run, job.pending[0].shard)) == 1


def test_a_shard_whose_safe_attempts_died_is_put_aside(job: CleanJob) -> None:
    shard = job.pending[0]
    for _ in range(2):
        attempt = start_attempt(job.run, shard.shard, safe=True)
        end_attempt(job.run, shard.shard, attempt, Ending.DIED, "killed by signal 9")
    result = job.spec.open(Grant()).process(shard)
    assert isinstance(result, ShardQuarantined)
    assert "killed by signal 9" in result.why
    assert read_commit(job.run, shard.shard) is None


def test_a_spec_is_small_enough_to_send(job: CleanJob) -> None:
    sent = pickle.dumps(job.spec)
    assert pickle.loads(sent) == job.spec
    assert len(sent) < 10_000


def test_a_commit_says_on_what_it_was_made_and_how_fast(job: CleanJob) -> None:
    worker = job.spec.open(Grant("w1"))
    worker.process(job.pending[0])
    commit = read_commit(job.run, job.pending[0].shard)
    assert commit is not None
    assert commit.environment["device"] == worker.device == "cpu"
    assert commit.environment["images_per_s"] > 0


# --- Compiled towers. ---


@pytest.fixture
def two() -> list[Filter]:
    return [Filter.load(locate.resolve("tiny-filter")) for _ in range(2)]


@torch.inference_mode()
def test_towers_are_compiled_before_the_first_batch(
    two: list[Filter], caplog: pytest.LogCaptureFixture
) -> None:
    size = two[0].preprocess.height
    pictures = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    expected = two[0].image_states(pictures)
    caplog.set_level(logging.INFO)
    seconds = compile_towers(two, 3, partial(torch.compile, backend="eager"))
    assert seconds > 0
    assert caplog.text.count("was compiled in") == 2
    for model in two:
        assert model.is_compiled
        torch.testing.assert_close(model.image_states(pictures), expected)
    assert caplog.text.count("was compiled in") == 2, "no batch waits for it"


@torch.inference_mode()
@pytest.mark.parametrize("fails", [True, False])
def test_a_compiler_that_fails_is_told_once_and_one_that_is_full_not_at_all(
    two: list[Filter], caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    asked = []

    def broken(_: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        def see(_: torch.Tensor) -> torch.Tensor:
            asked.append(1)
            raise RuntimeError("no C compiler") if fails else torch.OutOfMemoryError("full")

        return see

    compile_towers(two, 2, broken)
    assert len(asked) == (1 if fails else 2)
    assert caplog.text.count("is run as it is") == (1 if fails else 0)
    assert [model.is_compiled for model in two] == [not fails] * 2


def test_a_worker_on_a_cpu_compiles_nothing(job: CleanJob) -> None:
    assert job.spec.open(Grant("w1")).warm_up_s == 0


def test_the_driver_knows_what_is_done_whoever_did_it(job: CleanJob) -> None:
    records, (first, second, third) = CleanRecords(job.run), job.pending
    assert records.look_up(first) is None
    done = job.spec.open(Grant()).process(first)
    assert records.look_up(first) == done
    assert records.samples(done) == 4
    attempt = start_attempt(job.run, second.shard, safe=True, worker="w2")
    records.ended(second, "w2", Ending.DIED, "its node is gone")
    (ended,) = read_attempts(job.run, second.shard)
    assert (ended.attempt, ended.ending, ended.detail) == (attempt, Ending.DIED, "its node is gone")
    quarantine(job.run, third.shard, [ended])
    assert isinstance(records.look_up(third), ShardQuarantined)
    assert records.failed(first, "why") == ShardFailed(first, "why")
    assert records.samples(records.failed(first, "why")) == 0
