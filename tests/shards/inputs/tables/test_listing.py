"""Parquet files become shards, whole or by row groups; broken ones are damaged, not lost."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.inputs.listing import InputMismatch, compare_lists, list_inputs
from shards.inputs.shard import InputError, InputOptions, InputShard


def write(path: Path, rows: int = 10, group: int = 2) -> Path:
    table = pa.table({"image": [b"%d" % n for n in range(rows)], "text": ["t"] * rows})
    pq.write_table(table.cast(pa.schema([("image", pa.binary()), ("text", pa.string())])), path,
                   row_group_size=group)  # fmt: skip
    return path


def listed(path: Path, most: int) -> list[InputShard]:
    return list_inputs([str(path)], None, InputOptions(samples_per_shard=most))


def test_a_long_file_is_divided_by_row_groups(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    (whole,) = listed(path, 10)
    assert (whole.shard, whole.first, whole.count) == ("a", 0, 5)
    assert whole.size_bytes == path.stat().st_size
    parts = listed(path, 3)
    assert [(s.shard, s.first, s.count) for s in parts] == [
        ("a%2F00000", 0, 2),
        ("a%2F00001", 2, 2),
        ("a%2F00002", 4, 1),
    ]
    assert sum(part.size_bytes for part in parts) < whole.size_bytes
    with pytest.raises(InputMismatch, match="new: a%2F00000"):
        compare_lists([whole], parts)


def test_other_columns_are_another_list(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "text": ["t"], "alt": ["a"]}), tmp_path / "a.parquet")
    (one,) = listed(tmp_path, 9)
    other = replace(one, text_column="alt")
    with pytest.raises(InputMismatch, match=r"elsewhere: a: .*image, text.*image, alt"):
        compare_lists([one], [other])


def test_a_broken_part_is_a_damaged_shard_and_alone_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(whole.read_bytes()[:100])
    assert [(s.shard, s.count) for s in listed(tmp_path, 99)] == [("a", 5), ("b", 0)]
    with pytest.raises(InputError, match=r"b\.parquet: not_parquet"):
        listed(tmp_path / "b.parquet", 99)


def test_a_table_without_rows_is_refused_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty_table"):
        listed(write(tmp_path / "a.parquet", 0), 99)


def test_patterns_and_files_of_no_ending(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.PARQUET")
    assert [s.shard for s in list_inputs([f"{tmp_path}/*.parquet"])] == ["a"]
    assert [s.shard for s in list_inputs([str(tmp_path / "b.PARQUET")])] == ["b"]
    (tmp_path / "a.parquet").rename(tmp_path / "download")
    assert [s.kind for s in list_inputs([str(tmp_path / "download")])] == ["parquet"]
