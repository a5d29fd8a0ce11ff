"""What a view leaves out, as its file has it."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import DamagedFile
from shards.run.exclusion import Exclusion, left_out_by_shard, left_out_of, read_groups
from shards.run.run import Run
from shards.schema import GROUPS
from tests.support.hashed_run import Picture, hashed_run, stranger

NAME = "views/less/groups-1.parquet"


def table(*rows: tuple[str | None, str, int, str | None]) -> pa.Table:
    names = ("run", "shard", "index", "reason")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=GROUPS)


GROUPED = table(
    (None, "b", 3, None),
    (None, "b", 1, "duplicate_image"),
    ("/runs/eval", "b", 9, "duplicate_image"),
    (None, "a", 7, "skipped"),
    (None, "b", 0, "skipped"),
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return hashed_run(tmp_path / "run", [Picture("a", "a", stranger(0))])


def stored(run: Run, groups: pa.Table) -> Exclusion:
    buffer = io.BytesIO()
    pq.write_table(groups, buffer)
    run.store.put(NAME, buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    return Exclusion(groups=NAME, groups_sha256=digest, samples=3)


def test_keepers_and_what_stands_elsewhere_are_not_left_out() -> None:
    rows = left_out_of(GROUPED).select(["shard", "index"]).to_pylist()
    assert [(row["shard"], row["index"]) for row in rows] == [("b", 1), ("a", 7), ("b", 0)]


def test_each_shard_has_its_own() -> None:
    by_shard: dict[str, Any] = {
        shard: sorted(zip(rows["index"].to_pylist(), rows["reason"].to_pylist(), strict=True))
        for shard, rows in left_out_by_shard(GROUPED).items()
    }
    assert by_shard == {"a": [(7, "skipped")], "b": [(0, "skipped"), (1, "duplicate_image")]}
    assert left_out_by_shard(GROUPS.empty_table()) == {}


def test_a_file_is_read_as_it_was_written_or_named_as_damaged(run: Run) -> None:
    assert len(read_groups(run, None)) == 0
    exclusion = stored(run, GROUPED)
    assert read_groups(run, exclusion).equals(GROUPED)
    stored(run, GROUPED.slice(1))
    with pytest.raises(DamagedFile, match="sha256"):
        read_groups(run, exclusion)
    run.store.delete(NAME)
    with pytest.raises(DamagedFile, match="it is gone"):
        read_groups(run, exclusion)
