"""Snapshots, `snapshot.json` and `clean.txt` say the same, or verification says where not."""

import json
import shutil
from pathlib import Path

import pytest

from shards.run.attempt import Quarantine
from shards.run.commit import commit
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.run.verify.run import verify_run
from tests.shards.conftest import DoWork, MakeRun
from tests.support.changed_run import record_of


def problems(run: Run) -> str:
    return "\n".join(str(problem) for problem in verify_run(run).problems)


def test_all_snapshots_are_checked(any_url: str, make_run: MakeRun, do_work: DoWork) -> None:
    run = make_run(any_url, committed=False)
    assert commit(run, do_work(run, run.shards[0]))
    older = write_snapshot(run, allow_partial=True)
    assert problems(run) == ""
    for shard in run.shards[1:]:
        assert commit(run, do_work(run, shard))
    newer = write_snapshot(run)
    assert older.id != newer.id
    assert problems(run) == ""
    name = f"snapshots/{older.id}.parquet"
    whole = run.store.read(name)
    for torn in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-10]):
        run.store.put(name, torn)
        assert f"{name}: " in problems(run)
    run.store.put(name, run.store.read(f"snapshots/{newer.id}.parquet"))
    assert f"{name}: its rows' hash: expected {older.id}, found {newer.id}" == problems(run)


def test_snapshot_json(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    write_snapshot(run)
    record = record_of(run, "snapshot.json")
    for change, message in (
        ({"id": "0" * 32}, "there is no such snapshot, found 000"),
        ({"shards": 2}, "counts: expected"),
        ({"partial": True}, "counts: expected"),
    ):
        run.store.put("snapshot.json", json.dumps(record | change).encode())
        assert f"snapshot.json: {message}" in problems(run)
    for torn in (b"", b'{"id": ', b"[]", b"\xff"):
        run.store.put("snapshot.json", torn)
        assert "snapshot.json: " in problems(run)
        assert "snapshot.json: is damaged" in problems(run)
    run.store.delete("snapshot.json")
    assert problems(run) == "snapshot.json: the file is gone, and clean.txt is there"
    run.store.delete("clean.txt")  # as if killed before either was written
    assert problems(run) == ""


def test_clean_txt(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    write_snapshot(run)
    whole = run.store.read("clean.txt").decode().splitlines(keepends=True)
    assert len(whole) > 1
    for lines in (whole[1:], whole[::-1], [*whole, whole[0]], ["", *whole[1:]], []):
        run.store.put("clean.txt", "".join(lines).encode())
        assert "clean.txt: does not list the clean tars" in problems(run)
    elsewhere = "".join("/elsewhere/" + line.lstrip("/") for line in whole)
    run.store.put("clean.txt", elsewhere.encode())
    assert "clean.txt: lists the clean tars of another place" in problems(run)
    run.store.delete("clean.txt")
    assert problems(run) == "clean.txt: the file is gone"


def test_a_run_that_was_moved_or_is_seen_by_another_path(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(str(tmp_path / "run"))
    write_snapshot(run)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert problems(Run.open(str(tmp_path / "link"))) == ""
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert "clean.txt: lists the clean tars of another place" in problems(
        Run.open(str(tmp_path / "moved"))
    )


@pytest.fixture
def aside() -> bytes:
    why = Quarantine(shard="00001", why="died", attempts=("a", "b"), written="2026-01-01")
    return why.model_dump_json().encode()


def test_quarantined_shards_are_not_pending(
    any_url: str, make_run: MakeRun, do_work: DoWork, aside: bytes
) -> None:
    run = make_run(any_url, committed=False)
    run.store.put("quarantine/00001.json", aside)
    assert commit(run, do_work(run, "00000"))
    checked = verify_run(run)
    assert (checked.problems, checked.quarantined, checked.pending) == ((), ("00001",), ("00002",))
    assert commit(run, do_work(run, "00001"))  # both is lawful: the commit counts
    checked = verify_run(run)
    assert (checked.problems, checked.quarantined, checked.committed) == ((), (), 2)


def test_broken_quarantine_records(any_url: str, make_run: MakeRun, aside: bytes) -> None:
    run = make_run(any_url, committed=False)
    run.store.put("quarantine/00001.json", aside[:20])
    checked = verify_run(run)
    assert "quarantine/00001.json: is damaged" in str(checked.problems[0])
    assert "00001" in checked.pending
    run.store.put("quarantine/00001.json", b"")
    run.store.put("quarantine/stranger.json", aside.replace(b"00001", b"stranger"))
    found = problems(run)
    assert "quarantine/stranger.json: is of a shard that is not in input.parquet" in found
