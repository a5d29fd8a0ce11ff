"""The list of a folder's samples comes back as it was written, or is damage."""

from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import DamagedFile
from shards.inputs.folders.file_list import FileListWriter, FileRow, mean_time, read_files
from shards.inputs.shard import InputShard

ROWS = [
    FileRow("a", b"d/\xff.jpg", 7, b"d/a.txt", 2, meta=b"{}"),
    FileRow("b", text=b"words", reason="unsafe_member", detail="a link"),
]


def written(path: Path) -> list[InputShard]:
    with FileListWriter(path) as writer:
        shards = []
        for rows in (ROWS, ROWS[:1]):
            for row in rows:
                writer.add(replace(row), [1.0])
            group = writer.close_group()
            shards.append(
                InputShard(
                    "/f",
                    str(group.number),
                    group.size_bytes,
                    mtime=group.mtime,
                    kind="folder",
                    first=group.number,
                    count=1,
                    files_sha256=group.sha256,
                    listing=str(path),
                )
            )
    return shards


def test_rows_come_back_by_group(tmp_path: Path) -> None:
    first, second = written(tmp_path / "files.parquet")
    assert (list(read_files(first)), list(read_files(second))) == (ROWS, ROWS[:1])
    assert (first.size_bytes, second.size_bytes) == (16, 11)


def test_another_list_is_damage(tmp_path: Path) -> None:
    first, second = written(tmp_path / "files.parquet")
    for wrong in (replace(first, first=1), replace(first, first=9)):
        with pytest.raises(DamagedFile):
            list(read_files(wrong))
    (tmp_path / "files.parquet").write_bytes(b"PAR1")
    with pytest.raises(DamagedFile):
        list(read_files(second))


def test_keys_are_made_unique_within_a_group(tmp_path: Path) -> None:
    with FileListWriter(tmp_path / "f.parquet") as writer:
        rows = [FileRow(key) for key in ("a", "a#2", "a", "a")]
        for row in rows:
            writer.add(row, [])
        writer.close_group()
    assert [row.key for row in rows] == ["a", "a#2", "a#3", "a#4"]


def test_any_change_of_a_time_changes_the_mean() -> None:
    times = [1.7e9 + number * 0.37 for number in range(1_000)]
    moved = [*times[:500], times[500] - 0.01, *times[501:]]
    assert mean_time(times) != mean_time(moved)
    assert mean_time([]) is None
