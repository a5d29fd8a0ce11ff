"""The reader on the collection of bad shards, by what its manifest expects."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from shards.inputs.reader import RawSample, ShardReader, ShardState, State


def read(data: bytes) -> tuple[list[RawSample], ShardState]:
    reader = ShardReader(io.BytesIO(data))
    return list(reader), reader.state


@pytest.fixture
def bad_inputs(data_dir: Path) -> list[tuple[dict[str, Any], list[RawSample], ShardState]]:
    """Read every case that this reader decides: (case, rows, state)."""
    folder = data_dir / "bad_inputs"
    decided = ("key_", "member_", "shard_", "text_only", "image_only")
    return [
        (case, *read((folder / case["file"]).read_bytes()))
        for case in json.loads((folder / "manifest.json").read_text())
        if case["case"].startswith(decided)
    ]


def good_keys(rows: list[RawSample]) -> set[str]:
    return {row.key for row in rows if row.reason is None and row.image and row.text}


def test_good_neighbours_survive(bad_inputs: Any) -> None:
    checked = 0
    for case, rows, _ in bad_inputs:
        assert set(case["good_keys"]) <= good_keys(rows), case
        checked += len(case["good_keys"])
    assert checked > 0


def test_rejected_members(bad_inputs: Any) -> None:
    decided = ("unsafe_member", "duplicate_key")
    cases = [(c, rows) for c, rows, _ in bad_inputs if c["reason"] in decided]
    assert {case["reason"] for case, _ in cases} == set(decided)
    for case, rows in cases:
        assert [r.key for r in rows if r.reason == case["reason"]] == [case["key"]], case


def test_missing_members_are_none(bad_inputs: Any) -> None:
    parts = {"image_missing": "image", "text_missing": "text"}
    for case, rows, _ in bad_inputs:
        if case["reason"] in parts:
            (row,) = [row for row in rows if row.key == case["key"]]
            assert getattr(row, parts[case["reason"]]) is None, case


def test_kept_and_any(bad_inputs: Any) -> None:
    for case, rows, state in bad_inputs:
        if case["expected"] == "kept":
            cut = case["case"] == "shard_no_eof"  # nothing says that no more should follow
            assert state.state is (State.TRUNCATED if cut else State.COMPLETE), case
        if case["expected"] == "kept" and case["key"] is not None:
            assert case["key"] in good_keys(rows), case
        if case["expected"] == "any" and case["key"] is not None:
            assert case["key"] in {row.key for row in rows}, case
        if case["reason"] == "not_adjacent":  # they are joined
            assert {row.key for row in rows} == good_keys(rows) != set(), case


def test_damaged_shards(bad_inputs: Any) -> None:
    for case, rows, state in bad_inputs:
        if case["expected"] == "shard_rejected":
            expected = {"shard_empty": State.EMPTY, "shard_not_tar": State.NOT_A_TAR}
            assert (rows, state.state) == ([], expected[case["reason"]]), case
        if case["expected"] == "shard_partial":
            assert state.state == case["reason"].removeprefix("shard_"), case
            cut = [row.key for row in rows if row.reason == case["reason"]]
            if "gzip" in case["case"]:  # behind the end of the tar that it holds
                assert (cut, {row.key for row in rows}) == ([], good_keys(rows)), case
            else:
                assert cut in ([""], [case["key"]]), case
        if case["case"] == "shard_gzip":
            assert state.state is State.COMPLETE, case
