"""Commits are rolled into segments, which save reads and never hide what stands in `commits/`."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shards.run import segment
from shards.run.commit import Commit, commit, commit_name, read_commit, read_commits
from shards.run.repair import repair_run
from shards.run.run import Run
from shards.run.segment import (
    parse_segment,
    read_committed,
    segment_name,
    segment_names,
    write_segments,
)
from shards.run.snapshot import write_snapshot
from shards.run.verify.garbage import find_garbage
from shards.schema import SchemaError
from shards.store import Store
from tests.shards.conftest import DoWork, MakeRun
from tests.support.changed_run import problems
from tests.support.many_shards import commit_many, make_many


@pytest.fixture
def run(any_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of 10 shards, rolled into segments of 4, 4 and 2."""
    monkeypatch.setattr(segment, "MOST", 4)
    made = make_many(any_url, 10, 2)
    write_segments(made, read_committed(made), 1)
    return made


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the reads of files, by their folders."""
    read, counted = Store.read, Counter[str]()

    def count(store: Store, name: str, *size: int | None) -> bytes:
        counted[name.split("/")[0]] += 1
        return read(store, name, *size)

    monkeypatch.setattr(Store, "read", count)
    return counted


def sizes(run: Run) -> list[int]:
    parsed = (parse_segment(run, name, run.store.read(name)) for name in segment_names(run))
    return sorted(len(entries) for entries in parsed)


def test_what_is_rolled_is_read_from_few_files(run: Run, reads: Counter[str]) -> None:
    assert sizes(run) == [2, 4, 4]
    reads.clear()
    committed = read_committed(run)
    assert reads == {"segments": 3}
    assert committed.commits == read_commits(run)
    assert list(committed.commits) == run.shards
    reads.clear()
    assert read_committed(run, committed).commits == committed.commits
    assert reads == {}, "what is known already is not read again"


def test_the_law_is_linear_in_segments(
    any_url: str, monkeypatch: pytest.MonkeyPatch, reads: Counter[str]
) -> None:
    monkeypatch.setattr(segment, "MOST", 5)
    for count in (10, 20):
        made = make_many(f"{any_url}-{count}", count, 1)
        write_segments(made, read_committed(made), 1)
        reads.clear()
        assert len(read_committed(made).commits) == count
        assert reads == {"segments": count // 5}


def test_only_new_commits_are_read_and_small_segments_grow(
    make_run: MakeRun,
    do_work: DoWork,
    any_url: str,
    reads: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segment, "MOST", 4)
    run = make_run(any_url, shards=7, committed=False)
    for done, expected in ((3, [3]), (6, [2, 4]), (7, [3, 4])):
        before = read_commits(run).keys()
        known = read_committed(run)
        for shard in run.shards[len(before) : done]:
            assert commit(run, do_work(run, shard))
        reads.clear()
        now = read_committed(run, known)
        assert reads["commits"] == done - len(before)
        assert now.commits == read_commits(run)
        write_segments(run, now, 1)
        assert sizes(run) == expected


def test_few_loose_commits_make_no_segment(any_url: str) -> None:
    made = make_many(any_url, 5, 1)
    committed = read_committed(made)
    write_segments(made, committed, 6)
    assert segment_names(made) == []
    write_segments(made, committed, 5)
    assert sizes(made) == [5]


@pytest.mark.parametrize("damage", [b"", b"\0" * 99, b"flip", None])
def test_a_damaged_or_lost_segment_costs_reads_alone(
    run: Run, reads: Counter[str], damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    name = next(name for name in segment_names(run))
    data = run.store.read(name)
    held = len(parse_segment(run, name, data))
    if damage is None:
        run.store.delete(name)
    else:
        flipped = data[:40] + bytes([data[40] ^ 1]) + data[41:]
        run.store.put(name, flipped if damage == b"flip" else damage)
        assert name in problems(run)
    reads.clear()
    with caplog.at_level(logging.WARNING):
        committed = read_committed(run)
    assert reads["commits"] == held
    assert (name in caplog.text) == (damage is not None)
    assert committed.commits == read_commits(run)
    write_segments(run, committed, 1)
    assert sizes(run) == [2, 4, 4], "it is written again"
    assert problems(run) == ""


def test_content_that_is_no_segment_is_refused_under_a_fitting_name(run: Run) -> None:
    """As bytes whose hash is right, that say something else."""
    import pyarrow as pa

    newer = b'{"schema_version": 99, "entries": []}'
    for text, error in ((b"{}", "commits"), (newer, "newer")):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(text)
        data = sink.getvalue().to_pybytes()
        name = segment_name(data)
        with pytest.raises(Exception, match=error) as told:
            parse_segment(run, name, data)
        assert isinstance(told.value, SchemaError) == (error == "newer")
        run.store.put(name, data)
        assert read_committed(run).commits == read_commits(run)


@pytest.mark.parametrize("cut", [0, 100])
def test_a_torn_commit_is_not_hidden(run: Run, cut: int) -> None:
    shard = run.shards[1]
    whole = run.store.read(commit_name(shard))
    run.store.put(commit_name(shard), whole[:cut])
    assert shard not in read_committed(run).commits
    assert "torn" in problems(run)


def test_a_changed_byte_beside_a_segment_is_told_by_verify(tmp_path: Path) -> None:
    """Even where size and time are as they were: verify reads the commits themselves."""
    import os

    run = make_many(str(tmp_path / "run"), 3, 1)
    write_segments(run, read_committed(run), 1)
    path = tmp_path / "run" / commit_name(run.shards[1])
    stamp, data = path.stat(), path.read_bytes()
    path.write_bytes(data.replace(b'"kept": 1', b'"kept": 0', 1))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert len(read_committed(run).commits) == 3
    assert "torn" in problems(run)
    done = repair_run(run)
    assert done.redo == [run.shards[1]]
    assert len(read_committed(run).commits) == 2


def test_a_commit_of_another_attempt_takes_the_place_of_its_copy(
    make_run: MakeRun, do_work: DoWork, any_url: str
) -> None:
    run = make_run(any_url)
    write_segments(run, read_committed(run), 1)
    shard = run.shards[0]
    old = read_commit(run, shard)
    run.store.delete(commit_name(shard))
    assert shard not in read_committed(run).commits
    assert commit(run, do_work(run, shard))
    committed = read_committed(run)
    now = committed.commits[shard]
    assert isinstance(old, Commit)
    assert now.attempt != old.attempt
    assert now == read_commit(run, shard)
    write_segments(run, committed)
    (name,) = segment_names(run)
    entries = parse_segment(run, name, run.store.read(name))
    assert {entry.commit.attempt for entry in entries} == {
        done.attempt for done in read_commits(run).values()
    }


def test_a_segment_that_contradicts_the_commits_is_a_problem_and_set_aside(run: Run) -> None:
    """A copy that claims to be of the file that stands there, and is not."""
    committed = read_committed(run)
    entry = committed.entries[run.shards[0]]
    other = entry.commit.model_copy(update={"started": "never"})
    lie: Any = {run.shards[0]: entry.model_copy(update={"commit": other})}
    write_segments(run, segment.Committed(entries=lie), 1)
    assert f"shard {run.shards[0]} is not as committed" in problems(run)
    assert repair_run(run).whole
    assert problems(run) == ""
    assert read_committed(run).commits == read_commits(run)


def test_segments_are_no_garbage(run: Run) -> None:
    write_snapshot(run)
    found = find_garbage(run, 0)
    assert (found.old, found.young, found.unknown) == ((), (), ())


def test_a_store_that_tells_no_times_has_no_segments(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_many(any_url, 3, 1)
    monkeypatch.setattr("shards.store._MODIFIED", ())
    write_segments(made, read_committed(made), 1)
    assert segment_names(made) == []
    assert read_committed(made).commits == read_commits(made)


def test_made_runs_are_whole(any_url: str) -> None:
    made = make_many(any_url, 4, 3)
    write_snapshot(made)
    assert problems(made) == ""
    commit_many(made, made.inputs, 3)  # the same files again
    assert problems(made) == ""
