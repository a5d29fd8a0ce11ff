"""A whole run has no problems; each kind of change to it is one."""

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from shards.errors import DamagedFile
from shards.run.commit import commit
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.run.verify.run import verify_run
from tests.shards.conftest import DoWork, MakeRun
from tests.support.changed_run import problems, record_of, with_value


def test_a_whole_run(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    write_snapshot(run)
    run.store.put("data/texts/00000-orphan.parquet", b"left by a killed attempt")
    checked = verify_run(run)
    assert (checked.problems, checked.committed, checked.pending) == ((), 3, ())


def test_pending_shards_are_no_problem(any_url: str, make_run: MakeRun, do_work: DoWork) -> None:
    run = make_run(any_url, committed=False)
    assert commit(run, do_work(run, run.shards[1]))
    checked = verify_run(run)
    assert (checked.problems, checked.committed) == ((), 1)
    assert checked.pending == (run.shards[0], run.shards[2])


def test_changed_commits(make_run: MakeRun, tmp_path: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    name = f"commits/{run.shards[0]}.json"
    original = run.store.read(name)
    record = record_of(run, name)
    counts = record["counts"]
    shifted = {**counts, "kept": counts["kept"] - 1, "filtered": counts["filtered"] + 1}
    renamed = [{**file, "name": file["name"].replace("00000", "00001")} for file in record["files"]]
    for change, message in (
        ({"counts": shifted}, "counts: expected"),
        ({"fingerprint": "x"}, "fingerprint: expected"),
        ({"files": record["files"][:2]}, "not one per table"),
        ({"files": renamed}, "not one per table"),
        ({"input": {**record["input"], "size_bytes": 1}}, "bytes of the input as read"),
    ):
        run.store.put(name, json.dumps({**record, **change}).encode())
        assert message in problems(run)
    run.store.put(name, b"{")
    assert "torn" in problems(run)
    run.store.put(name, original)
    run.store.put("commits/stranger.json", original)
    assert "not in input.parquet" in problems(run)


def test_changed_snapshots(make_run: MakeRun, tmp_path: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    snapshot = write_snapshot(run)
    name = f"snapshots/{snapshot.id}.parquet"
    table = pq.read_table(io.BytesIO(run.store.read(name)))
    buffer = io.BytesIO()
    pq.write_table(table.slice(1), buffer)
    run.store.put(name, buffer.getvalue())
    assert "its rows' hash: expected" in problems(run)
    buffer = io.BytesIO()
    pq.write_table(with_value("attempt", 0, "0" * 16)(table), buffer)
    run.store.put(name, buffer.getvalue())
    assert f"shard {run.shards[0]} is not as committed" in problems(run)
    run.store.delete(name)
    assert "there is no such snapshot" in problems(run)


def test_another_fingerprint_in_the_run(make_run: MakeRun, tmp_path: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    record = record_of(run, "run.json")
    record["identity"]["seed"] = 1
    run.store.put("run.json", json.dumps(record).encode())
    with pytest.raises(DamagedFile, match=r"run\.json is damaged: expected the fingerprint of its"):
        Run.open(run.store.url())


def test_a_recipe_that_is_not_the_run_s(make_run: MakeRun, tmp_path: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    for data in (b"", b"\0" * 40, b"seed: 1\n"):
        run.store.put("recipe.yaml", data)
        assert problems(run) == "recipe.yaml: is not the recipe that run.json records"
