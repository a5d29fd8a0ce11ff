"""Rows of Parquet come out one by one, with reasons for those that hold no picture."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.inputs.listing import list_inputs
from shards.inputs.opening import SampleReader, open_samples
from shards.inputs.reader import RawSample, State
from shards.inputs.shard import InputOptions
from shards.inputs.tables import reader as module

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def read(path: Path, most: int = 1_000) -> tuple[list[RawSample], list[SampleReader]]:
    rows, readers = [], []
    for shard in list_inputs([str(path)], None, InputOptions(samples_per_shard=most)):
        with open_samples(shard) as reader:
            rows += list(reader)
            readers.append(reader)
            assert reader.bytes_read == shard.size_bytes
    return rows, readers


def write(path: Path, group: int = 100, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def test_rows_have_keys_texts_and_fields(tmp_path: Path) -> None:
    images = [{"bytes": b"1", "path": "d/a.PNG"}, {"bytes": b"2", "path": None}, None]
    path = write(
        tmp_path / "a.parquet",
        image=pa.array(images, STRUCT),
        text=["one", None, ""],
        url=["u", "v", "w"],
        status=["success", None, "failed"],
    )
    rows, (reader,) = read(path)
    assert [(r.index, r.key, r.image, r.image_ext, r.text, r.detail) for r in rows] == [
        (0, "d/a", b"1", "png", b"one", None),
        (1, "00000001", b"2", "jpg", None, None),
        (2, "00000002", None, "jpg", b"", "failed"),
    ]
    assert json.loads(rows[0].meta or b"")["url"] == "u"
    assert reader.state.state is State.COMPLETE


def test_keys_that_come_again_have_the_row_behind_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", image=[b"1", b"2", b"3"], text=["t"] * 3, key=["k"] * 3)
    assert [row.key for row in read(path)[0]] == ["k", "k#1", "k#2"]


def test_parts_give_what_the_whole_does(tmp_path: Path) -> None:
    images = [b"%03d" % n * 1_000 for n in range(50)]
    path = write(tmp_path / "a.parquet", 7, image=images, text=list(map(str, range(50))))
    whole, _ = read(path)
    parts, readers = read(path, 10)
    assert [(row.key, row.image, row.text) for row in parts] == [
        (row.key, row.image, row.text) for row in whole
    ]
    assert len(readers) == 4
    assert len({reader.sha256 for reader in readers}) == 4


def test_a_broken_row_group_costs_its_rows_alone(tmp_path: Path) -> None:
    images = [b"%03d" % n * 1_000 for n in range(9)]
    table = pa.table({"image": images, "text": ["t"] * 9})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=3, compression="none", write_page_checksum=True,
                   use_dictionary=False)  # fmt: skip
    data = bytearray(path.read_bytes())
    at = data.index(b"004" * 100)
    data[at : at + 3] = b"xxx"
    path.write_bytes(data)
    rows, (reader,) = read(path)
    assert [row.reason for row in rows] == [None] * 3 + ["shard_corrupt"] + [None] * 3
    assert rows[3].detail is not None
    assert rows[3].detail.startswith("row group 1, rows 3 to 5")
    assert reader.state.state is State.CORRUPT


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", image=[b"1"], text=["t"])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 torn")
    rows, (_, torn) = read(tmp_path)
    assert len(rows) == 1
    assert torn.state.state is State.NOT_PARQUET
    assert torn.state.detail


def test_a_picture_beyond_all_bounds_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST_BYTES", 10)
    rows, _ = read(write(tmp_path / "a.parquet", image=[b"1" * 11, b"2"], text=["t", "u"]))
    assert [row.reason for row in rows] == ["unsafe_member", None]


def test_no_path_is_opened(tmp_path: Path) -> None:
    (tmp_path / "real.jpg").write_bytes(b"x")
    images = pa.array([{"bytes": None, "path": str(tmp_path / "real.jpg")}], STRUCT)
    write(tmp_path / "a.parquet", image=images, text=["t"])
    (row,) = read(tmp_path / "a.parquet")[0]
    assert (row.image, row.reason) == (None, None)
