"""A whole run has no problems; each kind of change to it is one."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.run.commit import commit, read_commit
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.run.verify.run import verify_run
from shards.schema import SCHEMAS

Change = Callable[[pa.Table], pa.Table]


def problems(run: Run) -> str:
    return "\n".join(str(problem) for problem in verify_run(run).problems)


def replace_file(run: Run, table: str, data: bytes, rows: int | None = None) -> None:
    """Put other bytes in place of shard 0's file, and make its commit agree with them."""
    done = read_commit(run, run.shards[0])
    assert done is not None
    files = []
    for file in done.files:
        if file.table == table:
            run.store.put(file.name, data)
            digest = hashlib.sha256(data).hexdigest()
            update = {"sha256": digest, "size_bytes": len(data)}
            file = file.model_copy(update=update | ({} if rows is None else {"rows": rows}))
        files.append(file)
    changed = done.model_copy(update={"files": tuple(files)})
    run.store.put(f"commits/{run.shards[0]}.json", changed.model_dump_json().encode())


def change_table(run: Run, table: str, change: Change) -> None:
    file = file_of(run, table)
    changed = change(pq.read_table(io.BytesIO(run.store.read(file))))
    buffer = io.BytesIO()
    pq.write_table(changed, buffer)
    replace_file(run, table, buffer.getvalue(), len(changed))


def file_of(run: Run, table: str) -> str:
    done = read_commit(run, run.shards[0])
    assert done is not None
    file = done.file(table)
    assert file is not None
    return file.name


def with_value(column: str, row: int, value: Any) -> Change:
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        rows[row][column] = value
        return pa.Table.from_pylist(rows, schema=table.schema)

    return change


def test_a_whole_run(any_url: str, make_run: Any) -> None:
    run = make_run(any_url)
    write_snapshot(run)
    run.store.put("data/texts/00000-orphan.parquet", b"left by a killed attempt")
    checked = verify_run(run)
    assert (checked.problems, checked.committed, checked.pending) == ((), 3, ())


def test_pending_shards_are_no_problem(any_url: str, make_run: Any, do_work: Any) -> None:
    run = make_run(any_url, committed=False)
    assert commit(run, do_work(run, run.shards[1]))
    checked = verify_run(run)
    assert (checked.problems, checked.committed) == ((), 1)
    assert checked.pending == (run.shards[0], run.shards[2])


@pytest.mark.parametrize("table", [*SCHEMAS, "clean"])
def test_changed_bytes(any_url: str, make_run: Any, table: str) -> None:
    run = make_run(any_url)
    name = file_of(run, table)
    data = bytearray(run.store.read(name))
    data[len(data) // 2] ^= 1
    run.store.put(name, bytes(data))
    assert f"{name}: sha256: expected" in problems(run)
    run.store.put(name, bytes(data[:-1]))
    assert f"{name}: size in bytes: expected {len(data)}, found {len(data) - 1}" in problems(run)
    run.store.delete(name)
    assert f"{name}: the file is gone" in problems(run)


CHANGES = [
    ("samples", lambda t: t.slice(1), "index is not 0 to"),
    ("samples", with_value("index", 3, 4), "index is not 0 to"),
    ("samples", with_value("shard", 0, "other"), "samples holds rows of other shards"),
    ("samples", with_value("status", 0, "fine"), "neither ok nor rejected"),
    ("samples", with_value("reason", 0, "image_blank"), "ok with one"),
    ("samples", with_value("reason", 4, None), "without a reason"),
    ("samples", with_value("reason", 4, "image_empty"), "counts: expected"),
    ("samples", with_value("key", 0, "k001"), "more than one ok sample"),
    ("samples", with_value("key", 3, "k999"), "is not the kept|samples: expected"),
    ("samples", with_value("text_reason", 0, "text_empty"), "without a text_reason"),
    ("samples", lambda t: t.drop_columns(["key"]), "column 'key'"),
    ("texts", lambda t: t.slice(1), "decisions are not one|web texts do not stand"),
    ("texts", lambda t: t.take(list(range(len(t)))[::-1]), "order of index and text_no"),
    ("texts", with_value("index", 19, 4), "order of index|not ok"),
    ("texts", with_value("origin", 1, "web"), "text_no 0 is not"),
    ("texts", with_value("origin", 1, "llava"), "counts: expected"),
    ("texts", with_value("text", 3, "another"), "not the kept sample"),
    ("texts", with_value("itm", 3, 0.875), "not the kept sample"),
    ("decisions", lambda t: t.take(list(range(len(t)))[::-1]), "in the order of the texts"),
    ("decisions", lambda t: t.slice(0, len(t) - 1), "one for each text"),
    ("decisions", with_value("reason", 0, "kept"), "contradict"),
    ("decisions", with_value("reason", 0, "score_not_finite"), "counts: expected"),
]


@pytest.mark.parametrize(("table", "change", "message"), CHANGES)
def test_changed_rows(
    make_run: Any, tmp_path: Any, table: str, change: Change, message: str
) -> None:
    import re

    run = make_run(str(tmp_path / "run"))
    assert problems(run) == ""
    change_table(run, table, change)
    assert re.search(message, problems(run)), problems(run)


def members_of(data: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = []
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found.append((member.name, file.read()))
    return found


def test_changed_clean_tars(make_run: Any, tmp_path: Any, tar_bytes: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    data = run.store.read(file_of(run, "clean"))
    members = members_of(data)
    assert len(members) > 6
    record = json.loads(members[1][1])
    texts = record["texts"]
    changes = {
        "samples: expected": members[3:],
        "is not the kept sample": [*members[:2], (members[2][0], b"another text"), *members[3:]],
        "rows: expected": [*members, ("s/more.jpg", b"i")],
    }
    for other in ({**record, "texts": []}, {**record, "run": "x"}, {**record, "texts": texts * 2}):
        swapped = [members[0], (members[1][0], json.dumps(other).encode()), *members[2:]]
        changes[f"is not the kept sample{' ' * len(changes)}"] = swapped
    for message, changed in changes.items():
        replace_file(run, "clean", tar_bytes(changed))
        assert message.strip() in problems(run)
    replace_file(run, "clean", data[: len(data) // 2])
    assert "not a whole tar: expected complete, found truncated" in problems(run)
    replace_file(run, "clean", data)
    assert problems(run) == ""


def test_a_missing_clean_tar_must_be_meant(make_run: Any, tmp_path: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    done = read_commit(run, run.shards[0])
    assert done is not None
    files = tuple(file for file in done.files if file.table != "clean")
    changed = done.model_copy(update={"files": files})
    run.store.put(f"commits/{run.shards[0]}.json", changed.model_dump_json().encode())
    assert "names no clean tar" in problems(run)
    run.identity["write"] = {"clean": "none"}
    assert "clean tar" not in problems(run)


def test_changed_commits(make_run: Any, tmp_path: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    name = f"commits/{run.shards[0]}.json"
    original = run.store.read(name)
    record = json.loads(original)
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


def test_changed_snapshots(make_run: Any, tmp_path: Any) -> None:
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


def test_another_fingerprint_in_the_run(make_run: Any, tmp_path: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    record = json.loads(run.store.read("run.json"))
    record["identity"]["seed"] = 1
    run.store.put("run.json", json.dumps(record).encode())
    assert "run.json: fingerprint: expected" in problems(Run.open(run.store.url()))
