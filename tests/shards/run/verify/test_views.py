"""A whole view has no problems; each kind of change to it is one."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.run.run import Run
from shards.run.snapshot import from_parquet, to_parquet, write_snapshot
from shards.run.verify.run import verify_run
from tests.shards.conftest import MakeRun
from tests.support.changed_run import record_of

Change = Callable[[pa.Table], pa.Table]


@pytest.fixture
def judged(tmp_path: Path, make_run: MakeRun) -> Run:
    run = make_run(str(tmp_path / "run"))
    wish = ViewRequest("strict", {"web": 0.7, "synthetic": 0.3})
    rejudge(run, wish, write_snapshot(run), lambda _: None)
    return run


def problems(run: Run) -> str:
    return "\n".join(str(problem) for problem in verify_run(run).problems)


RECORD = "views/strict/view.json"


def replace_decisions(run: Run, change: Change) -> None:
    """Change the view's decisions, which shards share, and make its own records agree with them."""
    record = record_of(run, RECORD)
    shards = list(from_parquet(run.store.read(record["shards"]), "here"))
    (file,) = (file for file in shards[0].files if file.table == "decisions")
    buffer = io.BytesIO()
    changed = change(pq.read_table(io.BytesIO(run.store.read(file.name))))
    pq.write_table(changed, buffer)
    run.store.put(file.name, buffer.getvalue())
    update = {
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "size_bytes": len(buffer.getvalue()),
        "rows": len(changed),
    }
    for place, shard in enumerate(shards):
        kept = [other for other in shard.files if other != file]
        files = (*kept, file.model_copy(update=update))
        shards[place] = dataclasses.replace(shard, files=files)
    data = to_parquet(shards)
    run.store.put(record["shards"], data)
    record["shards_sha256"] = hashlib.sha256(data).hexdigest()
    run.store.put("views/strict/view.json", json.dumps(record).encode())


def test_rows_of_shards_that_do_not_name_the_file(judged: Run) -> None:
    def add(table: pa.Table) -> pa.Table:
        row = {**table.to_pylist()[0], "shard": "other"}
        return pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])

    replace_decisions(judged, add)
    assert problems(judged).endswith("holds rows of other shards: ['other']")


def with_row(place: int, **values: Any) -> Change:
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        rows[place] |= values
        return pa.Table.from_pylist(rows, schema=table.schema)

    return change


def test_a_whole_view(judged: Run) -> None:
    checked = verify_run(judged)
    assert (checked.problems, checked.views) == ((), ("strict",))


def test_changed_bytes(judged: Run) -> None:
    (name, *_) = judged.store.list("views/strict/decisions")
    data = bytearray(judged.store.read(name))
    data[len(data) // 2] ^= 1
    judged.store.put(name, bytes(data))
    assert f"{name}: sha256: expected" in problems(judged)
    judged.store.delete(name)
    assert f"{name}: the file is gone" in problems(judged)
    assert f"{name}: the file is gone" == problems(judged)


CHANGES = [
    (lambda t: t, ""),
    (with_row(0, keep=True, reason="kept"), "texts not decided by the view's thresholds: 1"),
    (with_row(0, keep=True, reason="itm_below_threshold"), "contradict each other"),
    (with_row(0, reason="banned_word"), "refused for a reason that is not the run's own"),
    (lambda t: t.slice(1), "not one for each text"),
    (lambda t: t.take(list(range(len(t)))[::-1]), "in the order of the texts"),
    (lambda t: t.drop_columns(["keep"]), "column 'keep'"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_changed_decisions(judged: Run, change: Change, message: str) -> None:
    replace_decisions(judged, change)
    found = problems(judged)
    assert message in found
    assert bool(message) == bool(found)


def test_counts_that_are_not_those_of_the_decisions(judged: Run) -> None:
    record = record_of(judged, RECORD)
    shards = list(from_parquet(judged.store.read(record["shards"]), "here"))
    counts = shards[0].counts
    moved = {"kept": counts.kept - 1, "filtered": counts.filtered + 1}
    first = shards[0]
    changed = counts.model_copy(update=moved)
    shards[0] = type(first)(first.shard, first.attempt, first.state, changed, first.files)
    data = to_parquet(shards)
    judged.store.put(record["shards"], data)
    sha256 = hashlib.sha256(data).hexdigest()
    judged.store.put(
        "views/strict/view.json", json.dumps({**record, "shards_sha256": sha256}).encode()
    )
    assert "counts: expected" in problems(judged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rules": {"web": {"threshold": 0.7}}}, "have no threshold"),
        (
            {"rules": {"web": {"threshold": 0.75}, "synthetic": {"threshold": 0.3}}},
            "not decided by the view's thresholds",
        ),
        ({"fingerprint": "x"}, "expected a view of the run"),
        ({"snapshot": "0" * 32}, "has no snapshot"),
        ({"shards_sha256": "0" * 64}, "expected sha256 0"),
        ({"shards": "views/strict/shards-gone.parquet"}, "found none: it is gone"),
        ({"with_clean": True}, "views/strict/clean.txt: the file is gone"),
        ({"with_clean": True}, "names no clean tar"),
        ({"name": 3}, "found name: Input should be a valid string"),
    ],
)
def test_changed_records(judged: Run, change: dict[str, Any], message: str) -> None:
    judged.store.put(
        "views/strict/view.json", json.dumps(record_of(judged, RECORD) | change).encode()
    )
    assert message in problems(judged)


def test_a_torn_record(judged: Run) -> None:
    whole = judged.store.read("views/strict/view.json")
    for torn in (b"", b"{", whole[:100], b"\xff\xfe\x00"):
        judged.store.put("views/strict/view.json", torn)
        assert "views/strict/view.json: " in problems(judged)


def test_a_reason_that_lies_in_the_text_stays(make_run: MakeRun, tmp_path: Any) -> None:
    """The run's own reason is changed under the view, as if the view had dropped it."""
    run = make_run(str(tmp_path / "run"))
    rejudge(run, ViewRequest("strict", {"web": 0.7, "synthetic": 0.3}), write_snapshot(run), print)
    name = next(iter(run.store.list("data/decisions")))
    table = pq.read_table(io.BytesIO(run.store.read(name)))
    buffer = io.BytesIO()
    pq.write_table(with_row(0, reason="repetitive", keep=False)(table), buffer)
    run.store.put(name, buffer.getvalue())
    assert "a reason that lies in the text is not the run's own" in problems(run)
