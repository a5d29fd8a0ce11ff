"""How texts scored is counted right, kept with the files it is of, and never believed of others."""

import logging
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shards.run.record import write_record
from shards.run.repair import repair_run
from shards.run.run import Run
from shards.run.scoring import distribution as module
from shards.run.scoring.distribution import count_scores, keep_scores, scores_name, scores_of
from shards.run.snapshot import Snapshot, write_snapshot
from shards.statistics import run_statistics
from shards.store import Store
from tests.support.changed_run import problems
from tests.support.many_shards import make_many

SHARDS = 5


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(module, "LEAST", SHARDS)
    return make_many(str(tmp_path / "run"), SHARDS, 4)


@pytest.fixture
def snapshot(run: Run) -> Snapshot:
    listed = write_snapshot(run)
    keep_scores(run, listed.shards, listed.id)
    return listed


def test_each_text_is_in_its_bin(run: Run, snapshot: Snapshot, tmp_path: Path) -> None:
    bins = {origin: [0] * 20 for origin in ("synthetic", "web")}
    best = dict.fromkeys(bins, 0.0)
    for path in sorted((tmp_path / "run/data/texts").iterdir()):
        for row in pq.read_table(path).to_pylist():
            bins[row["origin"]][min(int(row["itm"] * 20), 19)] += 1
            best[row["origin"]] = max(best[row["origin"]], row["itm"])
    counted = count_scores(run, snapshot.shards)
    assert counted.counts == bins
    assert counted.highest == best


@pytest.mark.usefixtures("snapshot")
def test_what_is_kept_opens_no_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = run_statistics(run)
    monkeypatch.setattr(module, "read_data", None)
    assert run_statistics(run) == counted


def test_what_is_kept_of_other_files_counts_for_nothing(run: Run, snapshot: Snapshot) -> None:
    fewer = snapshot.shards[1:]
    assert scores_of(run, fewer, snapshot.id) == count_scores(run, fewer)
    assert scores_of(run, fewer, snapshot.id).counts != count_scores(run, snapshot.shards).counts


@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_what_is_damaged_is_said_and_counted_again(
    run: Run, snapshot: Snapshot, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    name = scores_name(snapshot.id)
    whole = run.store.read(name)
    run.store.put(name, whole.replace(b"1", b"2", 1) if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert scores_of(run, snapshot.shards, snapshot.id) == count_scores(run, snapshot.shards)
    assert name in caplog.text
    assert name in problems(run)
    assert repair_run(run).whole
    assert problems(run) == ""
    keep_scores(run, snapshot.shards, snapshot.id)
    assert run.store.read(name) == whole


def test_numbers_that_are_wrong_are_a_problem(run: Run, snapshot: Snapshot) -> None:
    right = count_scores(run, snapshot.shards)
    wrong = right.model_copy(update={"highest": {"web": 0.1}})
    run.store.put(scores_name(snapshot.id), write_record(wrong.model_dump()))
    assert "does not say how the texts scored" in problems(run)


def test_a_small_run_keeps_none(tmp_path: Path) -> None:
    made = make_many(str(tmp_path / "small"), 2, 1)
    listed = write_snapshot(made)
    keep_scores(made, listed.shards, listed.id)
    assert Store(str(tmp_path / "small")).list("snapshots") == [f"snapshots/{listed.id}.parquet"]
