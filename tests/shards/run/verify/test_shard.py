"""A committed shard's files are those of its commit, and its clean tar what its tables kept."""

import json
from typing import Any

import pytest

from shards.run.commit import read_commit
from shards.schema import SCHEMAS
from tests.shards.conftest import MakeRun
from tests.support.changed_run import file_of, problems, replace_file
from tests.support.tars import read_members


@pytest.mark.parametrize("table", [*SCHEMAS, "clean"])
def test_changed_bytes(any_url: str, make_run: MakeRun, table: str) -> None:
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


def test_changed_clean_tars(make_run: MakeRun, tmp_path: Any, tar_bytes: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    data = run.store.read(file_of(run, "clean"))
    members = read_members(data)
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


def test_a_missing_clean_tar_must_be_meant(make_run: MakeRun, tmp_path: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    done = read_commit(run, run.shards[0])
    assert done is not None
    files = tuple(file for file in done.files if file.table != "clean")
    changed = done.model_copy(update={"files": files})
    run.store.put(f"commits/{run.shards[0]}.json", changed.model_dump_json().encode())
    assert "names no clean tar" in problems(run)
    run.identity["write"] = {"clean": "none"}
    assert "clean tar" not in problems(run)
