"""The list of what a view leaves out is read as it was written, or not at all."""

import hashlib
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import DamagedFile
from shards.run.exclusion import Exclusion, left_out_by_shard, left_out_of, read_groups
from shards.run.run import Run
from shards.schema import GROUPS

NAME = "views/unique/groups-0123456789abcdef.parquet"


@pytest.fixture
def run(make_run: Any, tmp_path: Any) -> Run:
    made: Run = make_run(str(tmp_path / "run"))
    return made


def rows() -> pa.Table:
    """A group of four: its keeper, one left out, one of another run, and one more left out."""
    facts = {"group": 0, "shard": "s", "key": "k", "sha256": "0" * 64, "kind": "near"}
    runs, reasons = [None, None, "elsewhere", None], [None, "duplicate_image"] * 2
    return pa.Table.from_pylist(
        [
            {**facts, "index": index, "distance": 3, "run": run, "reason": reason}
            for index, (run, reason) in enumerate(zip(runs, reasons, strict=True))
        ],
        schema=GROUPS,
    )


def written(run: Run) -> Exclusion:
    buffer = io.BytesIO()
    pq.write_table(rows(), buffer)
    run.store.put(NAME, buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    return Exclusion(groups=NAME, groups_sha256=digest, samples=2)


def test_a_list_is_read_as_it_was_written(run: Run) -> None:
    assert read_groups(run, written(run)).equals(rows())
    assert read_groups(run, None).num_rows == 0


def test_keepers_and_samples_of_other_runs_are_not_left_out() -> None:
    assert left_out_of(rows())["index"].to_pylist() == [1, 3]


def test_each_shard_has_its_own() -> None:
    grouped = pa.Table.from_pylist(
        [
            {"shard": shard, "index": index, "run": run, "reason": reason}
            for run, shard, index, reason in [
                (None, "b", 3, None),
                (None, "b", 1, "duplicate_image"),
                ("elsewhere", "b", 9, "duplicate_image"),
                (None, "a", 7, "skipped"),
                (None, "b", 0, "skipped"),
            ]
        ],
        schema=GROUPS,
    )
    by_shard = {
        shard: sorted(zip(rows["index"].to_pylist(), rows["reason"].to_pylist(), strict=True))
        for shard, rows in left_out_by_shard(grouped).items()
    }
    assert by_shard == {"a": [(7, "skipped")], "b": [(0, "skipped"), (1, "duplicate_image")]}
    assert left_out_by_shard(GROUPS.empty_table()) == {}


@pytest.mark.parametrize("damage", ["flip", "gone"])
def test_a_damaged_list_is_told(run: Run, damage: str) -> None:
    exclusion = written(run)
    data = run.store.read(NAME)
    run.store.delete(NAME)
    if damage == "flip":
        run.store.put(NAME, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedFile, match="groups-0123456789abcdef"):
        read_groups(run, exclusion)
