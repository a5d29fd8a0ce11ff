"""Shards judged together come out as each by itself, in few files, whatever shares them."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.views import group as module
from pipeline.views.group import in_groups
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.inputs.reader import ShardState, State
from shards.run.commit import Counts, FileRecord
from shards.run.data import read_shard
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard, open_snapshot, table_files, write_snapshot
from shards.run.verify.garbage import find_garbage
from shards.run.verify.run import verify_run
from shards.run.view import View, open_view, view_names
from shards.schema import SCHEMAS
from tests.support.many_shards import make_many
from tests.support.object_store import s3_server

SHARDS, SAMPLES = 12, 4
ASKED = ViewRequest("v", {"web": 0.7, "synthetic": 0.2})


def shard_of(number: int, texts: int) -> SnapshotShard:
    files = tuple(
        FileRecord(table=table, name=f"{table}/{number}", size_bytes=1, sha256="", rows=texts)
        for table in SCHEMAS
    )
    return SnapshotShard(str(number), "", ShardState(state=State.COMPLETE), Counts(), files)


@given(st.lists(st.sampled_from([0, 1, 20, 999, 50_000, 99_999, 100_000, 100_001, 10**7])))
def test_groups_are_full_and_no_fuller(texts: list[int]) -> None:
    shards = [shard_of(number, rows) for number, rows in enumerate(texts)]
    groups = in_groups(shards)
    assert [shard for group in groups for shard in group] == shards
    sums = [sum(shard.file("texts").rows for shard in group) for group in groups]
    assert all(len(group) == 1 or rows <= 100_000 for group, rows in zip(groups, sums, strict=True))
    for rows, following in zip(sums, groups[1:], strict=False):
        assert rows + following[0].file("texts").rows > 100_000


def made(url: str, shards: int = SHARDS, samples: int = SAMPLES) -> Run:
    run = make_many(url, shards, samples)
    write_snapshot(run)
    return run


def judged(run: Run, asked: ViewRequest = ASKED) -> View:
    view, new = rejudge(run, asked, open_snapshot(run), lambda _: None)
    assert new
    return view


def by_hand(run: Run, thresholds: dict[str, float]) -> dict[str, list[tuple[Any, ...]]]:
    """Decide each text by itself, from the run's own files."""
    decided = {}
    for shard in open_snapshot(run).shards:
        texts, own = (
            pq.read_table(run.store.open(shard.file(table).name)).to_pylist()
            for table in ("texts", "decisions")
        )
        decided[shard.shard] = [
            (t["index"], t["text_no"], keep, "kept" if keep else "itm_below_threshold")
            if d["reason"] in ("kept", "itm_below_threshold")
            else (t["index"], t["text_no"], False, d["reason"])
            for t, d in zip(texts, own, strict=True)
            for keep in [bool(np.float32(t["itm"]) >= np.float32(thresholds[t["origin"]]))]
        ]
    return decided


def read_by_hand(run: Run, view: View) -> dict[str, list[tuple[Any, ...]]]:
    """Read all rows of the view's files, each file once."""
    decided: dict[str, list[tuple[Any, ...]]] = {shard.shard: [] for shard in view.shards}
    for name in dict.fromkeys(shard.file("decisions").name for shard in view.shards):
        for row in pq.read_table(run.store.open(name)).to_pylist():
            decided[row.pop("shard")].append(tuple(row.values()))
    return decided


@pytest.mark.parametrize(("most", "files"), [(1, 12), (20, 6), (33, 3), (100_000, 1)])
def test_decisions_are_the_same_in_however_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, files: int
) -> None:
    monkeypatch.setattr(module, "MOST_TEXTS", most)
    run = made(str(tmp_path / "run"))
    view = judged(run)
    expected = by_hand(run, dict(ASKED.threshold))
    assert read_by_hand(run, view) == expected
    assert len(table_files(view.shards, "decisions")) == files
    assert len(run.store.list("views/v/decisions")) == files
    for shard in view.shards:
        rows = [tuple(row.values())[1:] for row in read_shard(run, shard, "decisions").to_pylist()]
        assert rows == expected[shard.shard]
        kept = {row[0] for row in rows if row[2]}
        assert (shard.counts.kept, shard.counts.filtered) == (len(kept), SAMPLES - len(kept))
        for number, origin in enumerate(("web", "synthetic")):
            kept_texts = sum(row[2] for row in rows if row[1] == number)
            counted = shard.counts.texts[origin]
            assert (counted.given, counted.kept) == (SAMPLES, kept_texts)
    assert open_view(run, "v") == view
    assert verify_run(run).problems == ()


def test_a_kill_leaves_no_view_and_the_same_again_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TEXTS", 20)
    run = made(str(tmp_path / "run"))

    def die(_: int) -> None:  # as a file of decisions is there
        os.kill(os.getpid(), signal.SIGKILL)

    work = multiprocessing.get_context("fork").Process(
        target=rejudge, args=(run, ASKED, open_snapshot(run), die)
    )
    work.start()
    work.join(60)
    assert work.exitcode == -signal.SIGKILL
    left = run.store.list("views/v/decisions")
    assert left
    assert view_names(run) == []
    view = judged(run)
    assert read_by_hand(run, view) == by_hand(run, dict(ASKED.threshold))
    garbage = find_garbage(run, older_than_s=0)
    assert {n for leftover in garbage.old for n in leftover.files} >= set(left)
    assert not {n for leftover in garbage.old for n in leftover.files} & {
        file.name for shard in view.shards for file in shard.files
    }


def test_an_object_store_is_asked_for_each_table_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tables of each shard, and a few more files, whatever the number of shards."""
    with s3_server() as bucket:
        run = made(f"{bucket}/run", 30, 2)
        asked: list[str] = []
        real = run.store.fs._call_s3

        async def call(method: str, *arguments: Any, **named: Any) -> Any:
            asked.append(method)
            return await real(method, *arguments, **named)

        monkeypatch.setattr(run.store.fs, "_call_s3", call)
        judged(run)
        assert len(asked) < 2 * 30 + 30
        assert sum(method == "put_object" for method in asked) < 10


@pytest.mark.parametrize("shards", [300, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_very_many_small_shards_have_few_files(tmp_path: Path, shards: int) -> None:
    run = made(str(tmp_path / "run"), shards, 10)
    view = judged(run)
    assert len(run.store.list("views/v/decisions")) == -(-shards * 20 // 100_000)
    kept = sum(text[2] for texts in read_by_hand(run, view).values() for text in texts)
    assert kept == sum(t.kept for s in view.shards for t in s.counts.texts.values()) > 0
