"""Sets of scores: names, commits of their own, and that they are of the run's texts."""

import dataclasses
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from shards.errors import DamagedFile
from shards.run.attempt import start_attempt
from shards.run.commit import read_commits
from shards.run.data import read_data
from shards.run.record import read_record, write_record
from shards.run.run import Run
from shards.run.scoring.score_set import (
    ScoresError,
    ScoreSet,
    check_score_name,
    create_score_set,
    open_score_set,
    score_set_names,
    with_scores,
)
from shards.run.snapshot import open_snapshot, write_snapshot
from shards.schema import SCORES
from shards.writer import commit_scores
from tests.shards.conftest import MakeRun

SCORER = {"kind": "test", "digest": "a"}


@pytest.fixture
def run(any_url: str, make_run: MakeRun) -> Run:
    run = make_run(any_url)
    write_snapshot(run)
    return run


def write(scores: ScoreSet, value: float = 0.5) -> list[bool]:
    """Score every text with one number; say of each shard whether it was committed."""
    won = []
    for shard, facts in read_commits(scores.run).items():
        texts = facts.file("texts")
        assert texts is not None
        rows = read_data(scores.run, texts, ["shard", "index", "text_no"])
        columns = {name: rows[name] for name in rows.column_names}
        columns |= {"scorer": pa.repeat(scores.name, len(rows)), "name": pa.repeat("p", len(rows))}
        columns["value"] = pa.repeat(pa.scalar(value, pa.float32()), len(rows))
        attempt, now = start_attempt(scores.record, shard), datetime.now(UTC).isoformat()
        won.append(commit_scores(scores, facts, pa.table(columns), attempt, {}, now))
    return won


def test_scores_stand_beside_the_run_s_tables(run: Run) -> None:
    before = {name: run.store.read(name) for name in run.store.list()}
    scores = create_score_set(run, "clip", ["p"], SCORER, {})
    assert scores.qualified == ("clip.p",)
    assert all(write(scores))
    assert score_set_names(run) == ["clip"]
    assert open_score_set(run, "clip").record.identity == scores.record.identity
    shards = with_scores(run, open_snapshot(run).shards)
    for shard, facts in zip(shards, open_snapshot(run).shards, strict=True):
        added = shard.files[-1]
        assert shard.files[:-1] == facts.files
        assert added.name.startswith("scores/clip/data/scores/")
        table = read_data(run, added)
        assert table.schema.equals(SCORES, check_metadata=True)
        assert table["value"].unique().to_pylist() in ([0.5], [])
    assert {name: run.store.read(name) for name in before} == before
    assert all(name.startswith("scores/clip/") for name in set(run.store.list()) - before.keys())


def test_of_two_writers_one_wins(run: Run) -> None:
    scores = create_score_set(run, "clip", ["p"], SCORER, {})
    assert all(write(scores))
    files = set(run.store.list("scores/clip/data"))
    assert not any(write(scores, 0.9))
    assert set(run.store.list("scores/clip/data")) == files


def test_another_scorer_may_not_have_the_name(run: Run) -> None:
    create_score_set(run, "clip", ["p"], SCORER, {})
    create_score_set(run, "clip", ["p"], SCORER, {})  # goes on
    with pytest.raises(ScoresError, match=r"scorer\.digest: a -> b\. Choose another name"):
        create_score_set(run, "clip", ["p"], SCORER | {"digest": "b"}, {})


@pytest.mark.parametrize("name", ["", "a b", "1a", "a-b", "and", "itm", "Width", "a" * 65, "a.b"])
def test_names_that_a_condition_could_not_say(name: str) -> None:
    with pytest.raises(ScoresError):
        check_score_name(name)


def test_scores_that_are_not_there(run: Run) -> None:
    with pytest.raises(ScoresError, match="has no scores 'clip'; there are: none"):
        open_score_set(run, "clip")
    create_score_set(run, "clip", ["p"], SCORER, {})
    with pytest.raises(ScoresError, match="did you mean 'clip'"):
        open_score_set(run, "clop")


def test_scores_of_other_texts_are_stale(run: Run) -> None:
    write(create_score_set(run, "clip", ["p"], SCORER, {}))
    first, *others = open_snapshot(run).shards
    changed = [
        file.model_copy(update={"content_sha256": "0"}) if file.table == "texts" else file
        for file in first.files
    ]
    now = (dataclasses.replace(first, files=tuple(changed)), *others)
    with pytest.raises(ScoresError, match=f"shard {first.shard} are of other texts"):
        with_scores(run, now)


def test_scores_of_another_run_are_damage(run: Run) -> None:
    create_score_set(run, "clip", ["p"], SCORER, {})
    name = "scores/clip/run.json"
    record = read_record(run.store.read(name), name)
    for where, strange in (("scores/clap/run.json", record), (name, record | {"scores": "p"})):
        run.store.put(where, write_record(strange))
    run.store.put("scores/clap/input.parquet", run.store.read("scores/clip/input.parquet"))
    with pytest.raises(DamagedFile, match="scores 'clap' of the run"):
        open_score_set(run, "clap")
