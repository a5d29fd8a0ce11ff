"""Verification on many machines: the pool's second job finds what one process finds."""

import pickle
from pathlib import Path

import pytest

from flows.engines.job import Grant
from flows.stages.verify import CheckRecords, CheckSpec, ShardLost, ShardToCheck
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.run.run import Run
from shards.run.snapshot import open_snapshot
from shards.run.verify.run import verify_run
from tests.support.driving import Command
from tests.support.toy_run import clean_world


@pytest.fixture
def damaged(tmp_path: Path) -> Run:
    """A run of three shards: a flipped byte in one's texts, and the decisions on another gone."""
    write_toy_world(tmp_path / "web", ToyWorldConfig(samples=12, samples_per_shard=4))
    clean_world(tmp_path / "web", tmp_path / "run")
    run = Run.open(str(tmp_path / "run"))
    wish = ViewRequest("strict", {"web": 0.9})
    rejudge(run, wish, open_snapshot(run), lambda _: None)
    texts = sorted((tmp_path / "run/data/texts").iterdir())[0]
    data = bytearray(texts.read_bytes())
    data[len(data) // 2] ^= 1
    texts.write_bytes(data)
    sorted((tmp_path / "run/data/decisions").iterdir())[2].unlink()
    return run


def test_workers_find_shard_by_shard_what_one_process_finds(damaged: Run) -> None:
    spec: CheckSpec = pickle.loads(pickle.dumps(CheckSpec(damaged.store.url())))
    worker = spec.open(Grant("w1"))
    by_workers = [list(worker.process(ShardToCheck(shard))) for shard in damaged.shards]
    assert [bool(problems) for problems in by_workers] == [True, False, True]
    found = verify_run(damaged).problems
    assert [problem for problems in by_workers for problem in problems] == list(found)


def test_a_shard_that_costs_every_worker_ends_the_verification() -> None:
    with pytest.raises(ShardLost, match="shard 3 cannot be checked: its worker died 10 times"):
        CheckRecords().failed(ShardToCheck("3"), "its worker died 10 times")


@pytest.mark.nightly
def test_verify_on_ray_says_what_verify_says(damaged: Run, capfilt_ray: Command) -> None:
    url = damaged.store.url()
    before = damaged.store.list()
    here, there = capfilt_ray.run("verify", url), capfilt_ray.run("verify", url, "--on=ray")
    assert here.returncode == there.returncode == 1, there.stderr
    assert here.stdout == there.stdout
    assert damaged.store.list() == before
