"""Only what is ours, old, and named by nothing is garbage."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.run.commit import commit
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.run.verify.garbage import Garbage, GarbageError, Kind, find_garbage, remove_garbage
from shards.run.verify.run import verify_run
from tests.shards.conftest import DoWork, MakeRun

DAY_S = 24 * 3600
ID = "0123456789abcdef"


def names(garbage: Garbage) -> dict[str, str]:
    return {one.name: one.kind for one in garbage.old}


def age(root: Path, hours: float) -> None:
    """Make all that is there now look older."""
    stamp = time.time() - hours * 3600
    for path in [root, *root.rglob("*")]:
        os.utime(path, (stamp, stamp))


@pytest.fixture
def full(any_url: str, make_run: MakeRun) -> Run:
    """A run with a partial snapshot, a whole one, and a view."""
    run = make_run(any_url)
    snapshot = write_snapshot(run)
    rejudge(run, ViewRequest("strict", {"web": 0.65, "synthetic": 0.25}), snapshot, lambda _: None)
    return run


def test_a_whole_run_has_no_garbage(full: Run) -> None:
    before = full.store.list()
    found = find_garbage(full, 0)
    assert found == Garbage((), (), (), ())
    remove_garbage(full, found.old)
    assert full.store.list() == before


def test_what_nothing_names_goes_and_all_else_stays(full: Run, do_work: DoWork) -> None:
    before = full.store.list()
    loser = do_work(full, full.shards[0])  # an attempt that was killed before its commit
    orphans = {file.name: Kind.DATA for file in loser.files}
    orphans |= {
        f"views/strict/decisions/00001-{ID}.parquet": Kind.VIEW,
        f"views/strict/clean/00001-{ID}.tar": Kind.VIEW,
        f"views/strict/shards-{ID}.parquet": Kind.VIEW,
        f"commits/.tmp-{ID}": Kind.TEMPORARY,
        f".tmp-probe-{ID}": Kind.TEMPORARY,
    }
    for name in orphans.keys() - {file.name for file in loser.files}:
        full.store.put(name, b"left over")
    ours = [
        "report/index.html",
        "logs/2026-11-28T20-00-00Z-0123abcd.jsonl",
        "scores/x/commits/00001.json",
        "quarantine/00001.json",
        "set_aside/commits/a.json",
    ]
    unknown = [
        "notes.txt",
        "data/readme.md",
        f"data/texts/stranger-{ID}.parquet",
        "data/texts/00001-0123.parquet",
        f"data/other/00001-{ID}.parquet",
        "views/strict/mine.csv",
        ".tmp-of-someone-else/file",
    ]
    for name in ours + unknown:
        full.store.put(name, b"a file")

    found = find_garbage(full, 0)
    assert names(found) == orphans
    assert sorted(found.unknown) == sorted(unknown)
    sizes = {one.name: one.size_bytes for one in found.old}
    assert sizes == {name: len(full.store.read(name)) for name in orphans}
    assert full.store.exists(loser.files[0].name), "a dry run removes nothing"

    remove_garbage(full, found.old)
    attempt = f"attempts/{loser.shard}/{loser.attempt}.json"
    expected = {*before, *ours, *unknown, attempt}
    assert {file.name for file in full.store.survey() if not file.is_folder} == expected
    full.store.delete("quarantine/00001.json")
    assert verify_run(full).problems == ()
    assert find_garbage(full, 0).old == ()


def test_a_drivers_probe_stays_while_shards_are_pending(
    full: Run, make_run: MakeRun, tmp_path: Path
) -> None:
    pending = make_run(str(tmp_path / "another"), committed=False)
    for run in (pending, full):
        run.store.put(f".tmp-probe-{ID}", b"a driver's, that may work for days")
        run.store.put(f".tmp-{ID}", b"torn")
    assert names(find_garbage(pending, 0)).keys() == {f".tmp-{ID}"}
    assert [one.name for one in find_garbage(pending, 0).unfinished] == [f".tmp-probe-{ID}"]
    everything = {f".tmp-{ID}", f".tmp-probe-{ID}"}
    assert names(find_garbage(pending, 0, abandoned=True)).keys() == everything
    assert names(find_garbage(full, 0)).keys() == everything


def test_what_may_yet_be_committed_stays_however_old(
    full: Run, make_run: MakeRun, do_work: DoWork, tmp_path: Path
) -> None:
    run = make_run(str(tmp_path / "another"), committed=False)
    killed, frozen = do_work(run, run.shards[0]), do_work(run, run.shards[0])
    attempts = {file.name for file in (*killed.files, *frozen.files)}
    found = find_garbage(run, 0)
    assert (found.old, {one.name for one in found.unfinished}) == ((), attempts)
    assert names(find_garbage(run, 0, abandoned=True)).keys() == attempts
    assert find_garbage(run, 3600, abandoned=True).old == (), "it is as young as it was"
    assert commit(run, frozen)
    assert names(find_garbage(run, 0)).keys() == {file.name for file in killed.files}

    judging = [f"views/never/decisions/00001-{ID}.parquet", f"views/never/shards-{ID}.parquet"]
    for name in judging:
        full.store.put(name, b"of a judging that may yet end")
    found = find_garbage(full, 0)
    assert (found.old, [one.name for one in found.unfinished]) == ((), judging)
    assert list(names(find_garbage(full, 0, abandoned=True))) == judging


def test_what_was_committed_since_it_was_found_stays(
    make_run: MakeRun, do_work: DoWork, tmp_path: Path
) -> None:
    run = make_run(str(tmp_path / "run"), committed=False)
    work = do_work(run, run.shards[0])
    found = find_garbage(run, 0, abandoned=True)
    assert len(found.old) == len(work.files)
    assert commit(run, work)
    remove_garbage(run, found.old)
    assert verify_run(run).problems == ()


def test_young_files_stay(make_run: MakeRun, do_work: DoWork, tmp_path: Path) -> None:
    run = make_run(str(tmp_path / "run"), committed=False)
    assert commit(run, do_work(run, run.shards[0]))
    old = do_work(run, run.shards[0])
    age(tmp_path / "run", hours=25)
    young = do_work(run, run.shards[0])
    found = find_garbage(run, DAY_S)
    assert names(found).keys() == {file.name for file in old.files}
    assert {one.name for one in found.young} == {file.name for file in young.files}
    assert all(25 * 3600 <= (one.age_s or 0) < 25 * 3600 + 60 for one in found.old)
    assert not commit(run, young)
    remove_garbage(run, find_garbage(run, DAY_S).old)
    checked = verify_run(run)
    assert (checked.problems, checked.committed) == ((), 1)


def test_temporary_folders_go_whole_when_all_in_them_is_old(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(str(tmp_path / "run"))
    folders = [tmp_path / "run" / name for name in (".tmp-abcd_123", ".tmp-empty_12")]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "within").mkdir()
    (folders[0] / "within" / "samples").write_bytes(b"x" * 10)
    (folders[0] / "texts").write_bytes(b"x" * 5)
    age(tmp_path / "run", hours=25)
    (folders[0] / "texts").write_bytes(b"x" * 6)  # someone works there
    assert names(find_garbage(run, DAY_S)) == {".tmp-empty_12": Kind.TEMPORARY}
    age(tmp_path / "run", hours=25)
    found = find_garbage(run, DAY_S)
    assert {one.name: one.size_bytes for one in found.old} == {
        ".tmp-abcd_123": 16,
        ".tmp-empty_12": 0,
    }
    remove_garbage(run, found.old)
    assert not any(folder.exists() for folder in folders)
    assert find_garbage(run, 0).old == ()


def test_what_an_older_snapshot_names_stays(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(str(tmp_path / "run"))
    snapshot = write_snapshot(run)
    run.store.delete(f"commits/{run.shards[0]}.json")
    assert find_garbage(run, 0).old == ()
    run.store.delete(f"snapshots/{snapshot.id}.parquet")
    named = {file.name for file in snapshot.shards[0].files}
    assert {one.name for one in find_garbage(run, 0).unfinished} == named


@pytest.mark.parametrize(
    ("name", "torn"),
    [
        ("commits/00000.json", b"{"),
        ("commits/00000.json", b""),
        ("commits/stranger.json", b"{}"),
        ("snapshots/0123.parquet", b"PAR1"),
        ("views/strict/view.json", b"{"),
        ("views/other/view.json", b""),
    ],
)
def test_nothing_goes_while_something_cannot_be_read(full: Run, name: str, torn: bytes) -> None:
    full.store.put(name, torn)
    with pytest.raises(GarbageError, match=r"(?s)nothing is removed.*--repair"):
        find_garbage(full, 0)


def test_a_file_committed_while_we_look_is_seen(
    make_run: MakeRun, do_work: DoWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing and the reading of names, an attempt of long ago is committed."""
    run = make_run(str(tmp_path / "run"), committed=False)
    work = do_work(run, run.shards[0])
    survey = type(run.store).survey

    def then_commit(store: Any, folder: str = "") -> Any:
        listed = survey(store, folder)
        assert folder or commit(run, work)
        return listed

    monkeypatch.setattr(type(run.store), "survey", then_commit)
    assert find_garbage(run, 0).old == ()
