"""A compaction holds what the tables say, and where it does not, the tables are believed."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.views import group
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.errors import DamagedFile
from shards.run.data import read_shard
from shards.run.repair import repair_run
from shards.run.run import Run
from shards.run.scoring import compaction as module
from shards.run.scoring import distribution
from shards.run.scoring.compaction import (
    COLUMNS,
    compaction_name,
    keep_compaction,
    open_compaction,
    read_facts,
)
from shards.run.scoring.distribution import count_scores, keep_scores, read_scores
from shards.run.snapshot import Snapshot, write_snapshot
from shards.run.view import View
from shards.schema import VERSION_KEY
from tests.support.changed_run import problems
from tests.support.many_shards import make_many
from tests.support.object_store import s3_server

SHARDS, SAMPLES = 9, 4
ASKED = ViewRequest("", {"web": 0.7, "synthetic": 0.2})
BY_FRACTION = ViewRequest("", keep_fraction={"web": 0.5})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST", SHARDS)
    monkeypatch.setattr(distribution, "LEAST", SHARDS)
    monkeypatch.setattr(module, "_ROWS", 13)  # shards of 8 texts begin anywhere in one
    monkeypatch.setattr(module, "_AT_A_TIME", 4)
    monkeypatch.setattr(group, "MOST_TEXTS", 30)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_many(str(tmp_path / "run"), SHARDS, SAMPLES)


@pytest.fixture
def snapshot(run: Run) -> Snapshot:
    return kept(run)


def kept(run: Run) -> Snapshot:
    listed = write_snapshot(run)
    keep_compaction(run, listed.shards, listed.id)
    return listed


def judged(run: Run, snapshot: Snapshot, name: str, asked: ViewRequest) -> View:
    view, new = rejudge(run, replace(asked, name=name), snapshot, lambda _: None)
    assert new
    return view


def decisions(run: Run, view: View) -> list[pa.Table]:
    return [read_shard(run, shard, "decisions") for shard in view.shards]


def test_rows_of_any_shards_are_those_of_their_tables(run: Run, snapshot: Snapshot) -> None:
    compaction = open_compaction(run, snapshot.shards, snapshot.id)
    assert compaction is not None
    for first in range(SHARDS):
        some = snapshot.shards[first : first + 3]
        rows = compaction.read(some, COLUMNS).to_pylist()
        expected = []
        for shard in some:
            texts, own = (
                pq.read_table(run.store.path(shard.file(table).name)).to_pylist()
                for table in ("texts", "decisions")
            )
            for text, decision in zip(texts, own, strict=True):
                both = text | {"reason": decision["reason"]}
                expected.append({column: both[column] for column in COLUMNS})
        assert rows == expected
    parts = compaction.tables(["itm"])
    assert sum(len(part) for part in parts) == 2 * SAMPLES * SHARDS


@pytest.mark.parametrize("asked", [ASKED, BY_FRACTION])
def test_judging_by_it_opens_no_table_and_decides_alike(
    run: Run, monkeypatch: pytest.MonkeyPatch, asked: ViewRequest
) -> None:
    listed = write_snapshot(run)
    slow = judged(run, listed, "slow", asked)
    keep_compaction(run, listed.shards, listed.id)
    monkeypatch.setattr(group, "read_facts", None)
    fast = judged(run, listed, "fast", asked)
    assert decisions(run, fast) == decisions(run, slow)
    assert [s.counts for s in fast.shards] == [s.counts for s in slow.shards]
    assert fast.record
    assert slow.record
    assert fast.record.rules == slow.record.rules


def test_what_it_does_not_hold_is_read_from_the_tables(run: Run, snapshot: Snapshot) -> None:
    request = ViewRequest("w", where='"of 2" in text and itm > 0.1')
    view, _ = rejudge(run, request, snapshot, lambda _: None)
    assert 0 < sum(shard.counts.kept for shard in view.shards) <= SHARDS


@pytest.mark.parametrize("place", ["empty", "footer", "rows"])
def test_what_is_damaged_is_told_and_tables_are_read(
    run: Run, snapshot: Snapshot, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = compaction_name(snapshot.id)
    whole = run.store.read(name)
    at = {"footer": len(whole) - 6, "rows": 6}
    broken = bytearray(whole)
    if place == "empty":
        broken = bytearray()
    else:
        broken[at[place]] ^= 0xFF
    run.store.put(name, bytes(broken))
    with caplog.at_level(logging.WARNING):
        found = judged(run, snapshot, "broken", ASKED)
        keep_scores(run, snapshot.shards, snapshot.id)
    assert name in caplog.text
    assert read_scores(run, snapshot.id) == count_scores(run, snapshot.shards)
    assert name in problems(run)
    assert repair_run(run).whole
    assert problems(run) == ""
    expected = judged(run, snapshot, "tables", ASKED)
    assert decisions(run, found) == decisions(run, expected)
    keep_compaction(run, snapshot.shards, snapshot.id)
    assert run.store.read(name) == whole


@pytest.mark.parametrize("change", ["another table", "a newer version"])
def test_one_of_another_form_is_told_and_tables_are_read(
    run: Run, snapshot: Snapshot, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = run.store.path(name := compaction_name(snapshot.id))
    table = pq.read_table(path)
    if change == "another table":
        table = table.drop_columns("itm").replace_schema_metadata()
    else:
        table = table.replace_schema_metadata({**table.schema.metadata, VERSION_KEY: b"99"})
    pq.write_table(table, path)
    with caplog.at_level(logging.WARNING):
        found = judged(run, snapshot, "other", ASKED)
    assert name in caplog.text
    assert name in problems(run)
    assert repair_run(run).whole
    assert problems(run) == ""
    expected = judged(run, snapshot, "tables", ASKED)
    assert decisions(run, found) == decisions(run, expected)


def test_what_is_of_other_files_counts_for_nothing(run: Run, snapshot: Snapshot) -> None:
    assert open_compaction(run, snapshot.shards, snapshot.id) is not None
    turned = (*snapshot.shards[1:], snapshot.shards[0])
    assert open_compaction(run, turned, snapshot.id) is None
    assert open_compaction(run, snapshot.shards, "0" * 32) is None
    assert open_compaction(run, snapshot.shards, None) is None


def changed(rows: pa.Table) -> pa.Table:
    scores = pa.array([0.5, *rows["itm"].to_pylist()[1:]], pa.float32())
    place = rows.column_names.index("itm")
    return rows.set_column(place, rows.schema.field("itm"), scores)


def test_rows_that_are_wrong_are_a_problem(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrongly(*of: Any) -> Any:
        return ((some, changed(rows)) for some, rows in read_facts(*of))

    monkeypatch.setattr(module, "read_facts", wrongly)
    kept(run)
    assert "is not what the tables say" in problems(run)


def test_rows_that_changed_under_their_checksums_are_not_believed(
    run: Run, snapshot: Snapshot, caplog: pytest.LogCaptureFixture
) -> None:
    path = run.store.path(name := compaction_name(snapshot.id))
    rows, noted = pq.read_table(path), pq.read_metadata(path).metadata
    with pq.ParquetWriter(path, rows.schema, write_page_checksum=True) as writer:
        writer.write_table(changed(rows), 13)
        writer.add_key_value_metadata(noted)
    with caplog.at_level(logging.WARNING):
        found = judged(run, snapshot, "changed", ASKED)
        keep_scores(run, snapshot.shards, snapshot.id)
    assert name in caplog.text
    assert read_scores(run, snapshot.id) == count_scores(run, snapshot.shards)
    assert "the rows that were written" in problems(run)
    run.store.delete(name)
    expected = judged(run, snapshot, "tables", ASKED)
    assert decisions(run, found) == decisions(run, expected)


def test_scores_are_counted_from_it_alike(run: Run, snapshot: Snapshot) -> None:
    compaction = open_compaction(run, snapshot.shards, snapshot.id)
    assert compaction is not None
    assert count_scores(run, snapshot.shards, compaction) == count_scores(run, snapshot.shards)


@pytest.mark.parametrize("limits", [{"LEAST": SHARDS + 1}, {"MOST_TEXTS": 2 * SAMPLES - 1}])
def test_few_shards_and_large_ones_have_none(
    run: Run, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(module, name, value)
    listed = kept(run)
    assert not run.store.exists(compaction_name(listed.id))
    assert open_compaction(run, listed.shards, listed.id) is None


def test_it_is_read_from_an_object_store() -> None:
    with s3_server() as url:
        run = make_many(f"{url}/run", SHARDS, SAMPLES)
        listed = kept(run)
        compaction = open_compaction(Run.open(f"{url}/run"), listed.shards, listed.id)
        assert compaction is not None
        assert len(compaction.read(listed.shards[2:5], ["itm", "reason"])) == 6 * SAMPLES
        run.store.delete(compaction_name(listed.id))
        run.store.exists(compaction_name(listed.id))  # what s3fs has listed is forgotten
        with pytest.raises(DamagedFile, match="it is gone"):
            compaction.read(listed.shards[2:5], ["itm", "reason"])
