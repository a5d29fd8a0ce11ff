"""What can be mended is mended, the rest is set aside, and what is right is not touched."""

import json
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Barrier
from typing import Any

import pyarrow as pa
import pytest

from pipeline.views.exclude import ExclusionRequest, exclude
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.run.commit import commit, read_commit
from shards.run.repair import RepairError, repair, repair_run
from shards.run.run import Run
from shards.run.snapshot import open_snapshot, write_snapshot
from shards.run.verify.run import verify_run
from shards.run.view import open_view
from shards.schema import GROUPS
from shards.store import Store
from tests.shards.conftest import DoWork, MakeRun
from tests.support.changed_run import record_of


def everything(run: Run) -> dict[str, bytes]:
    return run.store.read_many(run.store.list())


def file_of(run: Run, table: str, shard: int = 1) -> str:
    done = read_commit(run, run.shards[shard])
    assert done is not None
    file = done.file(table)
    assert file is not None
    return file.name


@pytest.fixture
def full(tmp_path: Path, make_run: MakeRun) -> Run:
    run = make_run(str(tmp_path / "run"))
    snapshot = write_snapshot(run)
    rejudge(run, ViewRequest("strict", {"web": 0.65, "synthetic": 0.25}), snapshot, lambda _: None)
    assert verify_run(run).problems == ()
    return run


def test_a_whole_run_is_not_touched(full: Run) -> None:
    before = everything(full)
    done = repair_run(full)
    assert (done.whole, done.actions) == (True, [])
    assert everything(full) == before


def test_an_unfinished_run_is_not_touched(any_url: str, make_run: MakeRun, do_work: DoWork) -> None:
    run = make_run(any_url, committed=False)
    assert commit(run, do_work(run, run.shards[0]))
    before = everything(run)
    done = repair_run(run)
    assert (done.whole, done.actions) == (True, [])
    assert everything(run) == before


def flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


COMMITS = {
    "truncated": lambda data: data[:200],
    "empty": lambda _: b"",
    "garbage": lambda _: b"\x00\xff garbage",
    "other counts": lambda data: data.replace(b'"samples_in": 12', b'"samples_in": 13'),
    "other fingerprint": lambda data: data.replace(
        json.loads(data)["fingerprint"].encode(), b"0" * 64
    ),
}


@pytest.mark.parametrize("damage", COMMITS)
def test_a_broken_commit_is_set_aside(full: Run, do_work: DoWork, damage: str) -> None:
    before = everything(full)
    name = f"commits/{full.shards[1]}.json"
    broken = COMMITS[damage](before[name])
    assert broken != before[name]
    full.store.put(name, broken)
    done = repair_run(full)
    assert not done.whole
    assert (done.redo, done.judge_again, done.waiting) == ([full.shards[1]], [], ["strict"])
    (aside,) = full.store.list("set_aside/commits")
    assert aside.startswith(f"set_aside/commits/{full.shards[1]}-")
    assert full.store.read(aside) == broken
    after = everything(full)
    gone = before.keys() - after.keys()
    snapshot = json.loads(before["snapshot.json"])["name"]
    assert gone == {name, snapshot, "snapshot.json", "clean.txt"}
    assert all(after[kept] == before[kept] for kept in before.keys() - gone)
    moved = {data for name, data in after.items() if name.startswith("set_aside/")}
    assert moved == {broken, *(before[lost] for lost in gone - {name})}
    # While shards are pending, all that is there is right, but for the view that waits.
    assert [problem.where for problem in verify_run(full).problems] == ["views/strict/view.json"]

    assert commit(full, do_work(full, full.shards[1]))
    write_snapshot(full)
    assert repair_run(full).whole
    assert verify_run(full).problems == ()


@pytest.mark.parametrize("table", ["samples", "texts", "decisions", "clean"])
@pytest.mark.parametrize("damage", ["deleted", "flipped", "truncated"])
def test_broken_data_is_done_again(full: Run, do_work: DoWork, table: str, damage: str) -> None:
    name = file_of(full, table)
    data = full.store.read(name)
    if damage == "deleted":
        full.store.delete(name)
    else:
        full.store.put(name, flipped(data) if damage == "flipped" else data[:-100])
    done = repair_run(full)
    assert done.redo == [full.shards[1]]
    assert read_commit(full, full.shards[1]) is None
    assert commit(full, do_work(full, full.shards[1]))
    write_snapshot(full)
    assert verify_run(full).problems == ()


@pytest.mark.parametrize("lost", ["torn", "empty", "gone"])
@pytest.mark.parametrize("name", ["snapshot.json", "clean.txt", "snapshots"])
def test_lists_are_written_again(full: Run, name: str, lost: str) -> None:
    before = everything(full)
    if name == "snapshots":
        (name,) = full.store.list("snapshots")
    if lost == "gone":
        full.store.delete(name)
    else:
        full.store.put(name, before[name][:50] if lost == "torn" else b"")
    assert verify_run(full).problems != ()
    done = repair_run(full)
    assert done.whole
    assert len(done.actions) >= 1
    assert verify_run(full).problems == ()
    after = everything(full)
    assert after.keys() - before.keys() <= set(full.store.list("set_aside"))
    assert all(after[kept] == before[kept] for kept in before if kept != "snapshot.json")


def test_all_lists_at_once(full: Run) -> None:
    id = open_snapshot(full).id
    for name in ("snapshot.json", "clean.txt", f"snapshots/{id}.parquet"):
        full.store.delete(name)
    assert repair_run(full).whole
    assert open_snapshot(full).id == id
    assert verify_run(full).problems == ()


def test_a_partial_snapshot_keeps_its_list(
    any_url: str, make_run: MakeRun, do_work: DoWork
) -> None:
    run = make_run(any_url, committed=False)
    assert commit(run, do_work(run, run.shards[0]))
    write_snapshot(run, allow_partial=True)
    before = everything(run)
    run.store.delete("clean.txt")
    assert repair_run(run).whole
    assert everything(run) == before


def test_a_broken_view_is_judged_again(full: Run) -> None:
    before = everything(full)
    (name, *_) = full.store.list("views/strict/decisions")
    full.store.put(name, flipped(before[name]))
    done = repair_run(full)
    assert (done.redo, done.judge_again) == ([], ["strict"])
    assert not done.whole
    (aside,) = full.store.list("set_aside/views/strict")
    assert full.store.read(aside) == before["views/strict/view.json"]
    assert not full.store.exists("views/strict/view.json")
    assert repair_run(full).whole
    wish = ViewRequest("strict", {"web": 0.65, "synthetic": 0.25})
    assert rejudge(full, wish, open_snapshot(full), lambda _: None)[1]
    assert verify_run(full).problems == ()


def test_a_view_whose_list_of_what_it_leaves_out_is_damaged(full: Run) -> None:
    groups = pa.Table.from_pylist([], schema=GROUPS)
    request = ExclusionRequest("less", {})
    view = exclude(full, open_view(full), request, groups, lambda _: None)
    name = str(view.excluded and view.excluded.groups)
    full.store.put(name, flipped(full.store.read(name)))
    done = repair_run(full)
    assert done.judge_again == ["less"]
    assert [action.split()[:2] for action in done.actions] == [["moved", "views/less/view.json"]]
    assert not full.store.exists("views/less/clean.txt")


@pytest.mark.parametrize("name", ["skip.parquet", "block_hashes.txt"])
def test_a_damaged_list_is_set_aside_and_written_again(tmp_path: Path, name: str) -> None:
    lists = {"skip.parquet": b"some bytes", "block_hashes.txt": b"others"}
    identity: dict[str, Any] = {"skip": sha256(b"some bytes").hexdigest(), "kind": "screen"}
    identity |= {"screen": {"block_hashes": sha256(b"others").hexdigest()}}
    run = Run.create(Store(str(tmp_path / "run")), "", identity, {}, [])
    for file, data in lists.items():
        run.store.put(file, data)
    assert verify_run(run).problems == ()
    run.store.put(name, b"damage")
    (problem,) = verify_run(run).problems
    assert problem.where == name
    done = repair_run(run)
    assert (done.begun_with, done.whole) == ([name], False)
    assert not run.store.exists(name)


def test_a_torn_view_is_set_aside(full: Run) -> None:
    full.store.put("views/strict/view.json", b"{")
    done = repair_run(full)
    assert done.judge_again == ["strict"]
    assert verify_run(full).problems == ()


def test_a_view_whose_snapshot_will_not_come_back(full: Run) -> None:
    record = json.loads(full.store.read("views/strict/view.json"))
    changed = json.dumps(record | {"snapshot": "0" * 32}).encode()
    full.store.put("views/strict/view.json", changed)
    assert repair_run(full).judge_again == ["strict"]


def test_strangers_and_torn_quarantine(full: Run) -> None:
    commits = everything(full)
    full.store.put("commits/stranger.json", commits["commits/00000.json"])
    full.store.put("quarantine/00001.json", b"{")
    done = repair_run(full)
    assert done.whole, "the shard is committed, and the stranger none of ours"
    assert len(done.actions) == 2
    assert verify_run(full).problems == ()


def test_a_torn_quarantine_record_makes_its_shard_pending(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url, committed=False)
    run.store.put("quarantine/00001.json", b"{")
    assert repair_run(run).redo == ["00001"]
    assert verify_run(run).problems == ()


def test_a_disk_that_is_not_mounted_is_no_damage(full: Run) -> None:
    for name in full.store.list("data"):
        full.store.delete(name)
    before = everything(full)
    with pytest.raises(RepairError, match="not mounted"):
        repair_run(full)
    assert everything(full) == before


@pytest.mark.parametrize("name", ["run.json", "input.parquet"])
def test_what_a_run_begins_with_is_set_aside_and_written_again(full: Run, name: str) -> None:
    if name == "run.json":
        record = record_of(full, "run.json")
        record["identity"]["seed"] = 1
        full.store.put("run.json", json.dumps(record).encode())
    else:
        full.store.put(name, full.store.read(name)[:-9])
    before = everything(full)
    done = repair(full.store)
    assert (done.whole, done.begin_again) == (False, True)
    (aside,) = full.store.list("set_aside")
    assert everything(full) == {n: b for n, b in before.items() if n != name} | {
        aside: before[name]
    }
    Run.create(full.store, "seed: 0\n", full.identity, full.about, full.inputs)
    assert repair(full.store).whole
    assert verify_run(Run.open(full.store.url())).problems == ()


@pytest.mark.parametrize("data", [b"", b"\0" * 50, b"seed: 1"])
def test_the_recipe_is_written_again(full: Run, data: bytes) -> None:
    before = everything(full)
    full.store.put("recipe.yaml", data)
    assert repair(full.store).whole
    assert everything(full) == before


def test_repairs_at_once_set_each_file_aside_without_an_error(full: Run) -> None:
    for shard in full.shards:
        full.store.put(f"commits/{shard}.json", b"torn")
    url, together = full.store.url(), Barrier(4)

    def mend() -> int:
        together.wait()
        return len(repair(Store(url)).actions)

    with ThreadPoolExecutor(4) as pool:
        done = [each.result() for each in [pool.submit(mend) for _ in range(4)]]
    assert sum(done) >= len(full.shards)
    assert full.store.list("commits") == []
    aside = [full.store.read(name) for name in full.store.list("set_aside/commits")]
    assert len(aside) >= len(full.shards)
    assert set(aside) == {b"torn"}
