"""Bytes that are hashed, unpacked within bounds, and fetched here and there."""

import gzip
import hashlib
import io
import random
import tracemalloc
import zlib
from typing import BinaryIO, cast

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.inputs.tars.stream import (
    HashedFile,
    RangeFile,
    Readable,
    Unpacked,
    is_remote,
    seekable_size,
)

NOISE = random.Random(3).randbytes(300_000)


def everything(file: Readable, size: int = 70_000) -> bytes:
    return b"".join(iter(lambda: file.read(size), b""))


def unpacked(packed: bytes) -> tuple[bytes, tuple[str, int, str] | None, HashedFile]:
    file = HashedFile(io.BytesIO(packed))
    stream = Unpacked(file)
    return everything(stream), stream.fault, file


def test_what_is_read_is_hashed_whatever_seeks_between() -> None:
    source = io.BytesIO(NOISE)
    file = HashedFile(source)
    assert file.read(1) + file.read(1000) == NOISE[:1001]
    source.seek(7)
    file.resume()
    assert file.read(10) == NOISE[1001:1011]
    file.drain()
    assert (file.bytes_read, file.sha256) == (len(NOISE), hashlib.sha256(NOISE).hexdigest())
    assert not file.is_packed
    assert HashedFile(io.BytesIO()).read(5) == b""


@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=4), st.integers(0, 700))
def test_gzip_is_unpacked_as_the_standard_library_does(parts: list[bytes], zeros: int) -> None:
    packed = b"".join(gzip.compress(part) for part in parts) + bytes(zeros)
    data, fault, file = unpacked(packed)
    assert file.is_packed
    assert data == gzip.decompress(packed) == b"".join(parts)
    assert (fault, file.bytes_read) == (None, len(packed))


@pytest.mark.parametrize("cut", [2, 11, 30_000, 299_000, -8, -1])
def test_a_cut_gzip_gives_what_stands_before_the_cut(cut: int) -> None:
    packed = gzip.compress(NOISE)[:cut]
    data, fault, _ = unpacked(packed)
    assert NOISE.startswith(data)
    assert len(data) >= len(packed) - 70_000
    assert fault == ("truncated", len(packed), "the gzip file is cut off")


def test_a_broken_gzip_gives_what_stands_before_the_damage() -> None:
    packed = bytearray(gzip.compress(NOISE, 9))
    packed[-6] ^= 1  # of the checksum
    data, fault, _ = unpacked(bytes(packed))
    assert data == NOISE or NOISE.startswith(data)
    assert fault is not None
    assert fault[0] == "corrupt"
    data, fault, _ = unpacked(gzip.compress(NOISE) + b"more")
    assert data == NOISE
    assert fault is not None
    assert fault[2] == "other bytes follow the end of the gzip stream"


def bomb(zeros: int) -> bytes:
    packer, chunk = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16), bytes(1 << 20)
    return b"".join(packer.compress(chunk) for _ in range(zeros >> 20)) + packer.flush()


def test_a_bomb_is_left_early_and_takes_no_memory() -> None:
    file = HashedFile(io.BytesIO(bomb(200 << 20)))
    stream, size = Unpacked(file), 0
    tracemalloc.start()
    while data := stream.read(1 << 20):
        size += len(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size < 150 << 20
    assert peak < 4 << 20
    assert stream.fault is not None
    assert stream.fault[0] == "corrupt"
    assert "200 times its size" in stream.fault[2]
    # what is no bomb is read whole, though it is mostly zeros
    assert len(unpacked(bomb(40 << 20))[0]) == 40 << 20


def test_what_can_be_sought_in() -> None:
    class Stream(io.RawIOBase):
        def readable(self) -> bool:
            return True

    assert seekable_size(io.BytesIO(b"abc")) == 3
    assert seekable_size(cast(BinaryIO, Stream())) is None
    assert seekable_size(cast(BinaryIO, object())) is None


def test_a_remote_file_is_read_by_ranges() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/ranges/a", NOISE)

    class Remote:
        asked: list[tuple[int, int]] = []  # noqa: RUF012 - one test's

        def cat_file(self, path: str, start: int, end: int) -> bytes:
            Remote.asked.append((start, end))
            return bytes(fs.cat_file(path, start=start, end=end))

    class File:
        fs, path, size = Remote(), "/ranges/a", len(NOISE)

    file = RangeFile(cast(BinaryIO, File()))
    file.seek(10)
    assert file.read(20) + file.read(30) == NOISE[10:60]
    assert len(Remote.asked) == 1  # neighbours come along
    file.seek(290_000)
    assert file.read(20_000) == NOISE[290_000:]
    assert file.read(5) == b""
    assert len(Remote.asked) == 2
    assert not is_remote(io.BytesIO())
