"""Whatever a damaged Parquet file makes Arrow raise is one error of ours, that names the file."""

import io
import random
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import DamagedFile
from shards.schema import as_damage, open_parquet

TABLE = pa.table({"text": ["a red square", "a blue circle"] * 50, "itm": [0.5, 0.25] * 50})


def written() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(TABLE, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def read(data: bytes) -> pa.Table:
    with open_parquet(pa.BufferReader(data), "place/x.parquet") as file:
        return file.read(use_threads=False)


def test_a_whole_file_is_read() -> None:
    assert read(written()).equals(TABLE)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"garbage of some length",
        lambda data: data[:-9],
        lambda data: b"\0" * len(data),
        lambda data: data.replace(b"text", b"\xf4ext"),  # a column's name in the footer
        lambda data: data[:60] + b"\0" * 60 + data[120:],
    ],
)
def test_damage_is_one_error(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DamagedFile, match=r"place/x\.parquet is damaged: expected a whole Parquet"):
        read(spoil(written())).to_pylist()


def test_no_flip_ends_in_another_error() -> None:
    data, draw = written(), random.Random(3)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << draw.randrange(8)
        try:
            with open_parquet(pa.BufferReader(bytes(changed)), "here") as file:
                assert len(file.schema_arrow.names) >= 0
                file.read(use_threads=False).to_pylist()
        except DamagedFile:
            pass


def test_a_file_that_is_gone_is_damage(tmp_path: object) -> None:
    with pytest.raises(DamagedFile, match="none: it is gone"), open_parquet(f"{tmp_path}/x", "x"):
        pass


def test_a_fault_of_the_disk_is_none_of_the_file() -> None:
    with pytest.raises(OSError, match="Input/output error") as caught, as_damage("here"):
        raise OSError(5, "Input/output error")
    assert not isinstance(caught.value, DamagedFile)
