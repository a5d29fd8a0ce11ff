"""The occasion of a scoring: prepared once, worked by whoever comes, killed and gone on with."""

import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from flows.engines.engine import ShardDone, ShardFailed
from flows.engines.job import Grant
from flows.recipe import EngineConfig
from flows.stages.score import ScoreRecords, ScoreSpec, as_record, prepare
from flows.stages.score import score_shards as score
from models.checkpoints import locate
from models.scorers.config import BlipScorerConfig
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.run.attempt import Ending, read_attempts, start_attempt
from shards.run.commit import read_commits
from shards.run.run import Run
from shards.run.scoring.score_set import ScoresError, open_score_set
from shards.run.snapshot import write_snapshot
from shards.run.verify.run import verify_run
from tests.support.driving import Command
from tests.support.toy_run import clean_world

SCORER = BlipScorerConfig(model=str(locate.SHIPPED["tiny-filter"]))
HERE = EngineConfig(kind="local")
KILLED = """
import os, sys
from flows.recipe import EngineConfig
from flows.stages import score
from pipeline.views import score as scoring
from shards.run.run import Run

real, done = scoring.commit_scores, []
def commit_scores(*arguments):
    done.append(arguments)
    if len(done) == 2 and sys.argv[2] == "before":
        os._exit(9)
    won = real(*arguments)
    if len(done) == 2:
        os._exit(9)
    return won
scoring.commit_scores = commit_scores
scorer = score.read_scorer(sys.argv[3]).scorer
job = score.prepare(Run.open(sys.argv[1]), "again", scorer, EngineConfig(kind="local"))
score.score_shards(job, lambda _: None)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_toy_world(folder / "web", ToyWorldConfig(samples=12, samples_per_shard=3))
    clean_world(folder / "web", folder / "run")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    copied = Run.open(str(shutil.copytree(made / "run", tmp_path / "run")))
    write_snapshot(copied)  # whose list of clean tars has absolute paths
    return copied


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", pytest.param("behind", marks=pytest.mark.nightly)])
def test_after_a_kill_it_goes_on_and_each_shard_counts_once(run: Run, when: str) -> None:
    code = [sys.executable, "-c", KILLED, run.store.url(), when, SCORER.model]
    killed = subprocess.run(code, check=False, env=os.environ)
    assert killed.returncode == 9
    record = open_score_set(run, "again").record
    before = read_commits(record)
    assert len(before) == (1 if when == "before" else 2)
    heard: list[int] = []
    job = prepare(run, "again", SCORER, HERE)
    assert len(job.pending) == 4 - len(before)
    scored = score(job, heard.append)
    assert (scored.exit_code, scored.done, scored.of) == (0, 4, 4)
    assert heard == [3] * len(job.pending)
    after = read_commits(record)
    assert {shard: after[shard] for shard in before} == before
    attempts = Counter({s: len(read_attempts(record, s)) for s in run.shards}).total()
    assert attempts == (5 if when == "before" else 4)
    assert len(record.store.list("data")) == 4
    assert verify_run(run).problems == ()
    assert as_record(scored)["scores"] == ["again.itm", "again.itm_logit", "again.itc"]
    assert prepare(run, "again", SCORER, HERE).pending == ()


def test_another_scorer_under_the_name_is_refused(run: Run) -> None:
    prepare(run, "again", SCORER, HERE)
    other = SCORER.model_copy(update={"max_tokens": 20})
    with pytest.raises(ScoresError, match=r"scorer\.max_tokens: 35 -> 20\. Choose another name"):
        prepare(run, "again", other, HERE)


def test_a_worker_elsewhere_and_what_its_driver_records(run: Run) -> None:
    job = prepare(run, "again", SCORER, HERE)
    records, shard = ScoreRecords(job.scores), job.pending[0]
    assert records.look_up(shard) is None
    start_attempt(job.scores.record, shard.shard, worker="w0")
    records.ended(shard, "w0", Ending.DIED, "killed")
    assert [one.ending for one in read_attempts(job.scores.record, shard.shard)] == [Ending.DIED]
    spec: ScoreSpec = pickle.loads(pickle.dumps(job.spec))
    worker = spec.open(Grant("w1"))
    done = worker.process(shard)
    assert isinstance(done, ShardDone)
    assert records.look_up(shard) == done
    assert (worker.samples, worker.counts, records.samples(done)) == (3, (0, 0), 3)
    other = job.pending[1]
    failed = worker.process(replace(other, mtime=1.0))  # the input is another file now
    assert isinstance(failed, ShardFailed)
    assert records.samples(failed) == 0


@pytest.mark.nightly
def test_on_ray(run: Run, capfilt_ray: Command) -> None:
    flags = ("--scorer", SCORER.model, "--name=again", "--engine=ray")
    done = capfilt_ray.run("score", run.store.url(), *flags)
    assert done.returncode == 0, done.stderr
    assert "again.itm, again.itm_logit, again.itc: 4 of 4 shards" in done.stdout
    assert verify_run(run).problems == ()
