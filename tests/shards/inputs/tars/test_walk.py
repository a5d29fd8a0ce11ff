"""The way through a shard: as it stands, unpacked, or by an index, and the bytes it counts."""

import gzip
import hashlib
import io
from typing import Any, BinaryIO

import pytest

from shards.inputs.tars.tar import TarDamage
from shards.inputs.tars.walk import Walk
from shards.inputs.text import TXT
from tests.support.remote_file import forwards, remote

APART = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"3"), ("b.txt", b"4")]


def walk(file: BinaryIO) -> Walk:
    return Walk(file, TXT, lambda _: False)


def contents(found: Walk) -> list[bytes]:
    return [found.read(member) for member in found]


@pytest.fixture
def data(tar_bytes: Any) -> bytes:
    made: bytes = tar_bytes(APART)
    return made


def test_a_local_file_is_looked_through_first(data: bytes) -> None:
    found = walk(io.BytesIO(data))
    assert contents(found) == [b"1", b"3", b"2", b"4"]
    assert found.passed_bytes == 4 * 1024
    found.finish()
    assert (found.bytes_read, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert found.passed_bytes == len(data)
    assert found.has_end_marker


def test_a_remote_one_when_asked(data: bytes) -> None:
    found, seen = walk(remote(data)), []
    for member in found:
        seen.append((member.name, found.read(member)))
        if len(seen) == 2:
            assert found.look_ahead(1024)
            assert not found.look_ahead(0)
    assert seen == [
        (b"a.jpg", b"1"),
        (b"b.jpg", b"2"),  # and once more, with what is its own
        (b"b.jpg", b"2"),
        (b"b.txt", b"4"),
        (b"a.txt", b"3"),
    ]
    found.finish()
    assert found.sha256 == hashlib.sha256(data).hexdigest()


def test_where_nothing_stands_apart_it_goes_on(tar_bytes: Any, pairs: Any) -> None:
    data = tar_bytes(pairs(9))
    found, seen = walk(remote(data)), []
    for member in found:
        seen.append(found.read(member))
        if len(seen) == 5:
            assert not found.look_ahead(member.start)
    assert seen == [content for _, content in pairs(9)]
    found.finish()
    assert found.sha256 == hashlib.sha256(data).hexdigest()


def test_streams_cannot_be_looked_through(data: bytes) -> None:
    packed = gzip.compress(data)
    for file in (forwards(data), io.BytesIO(packed)):
        found = walk(file)
        assert not found.look_ahead(0)
        assert contents(found) == [content for _, content in APART]


def test_of_packed_files_the_bytes_are_those_of_the_file(data: bytes) -> None:
    packed = gzip.compress(data)
    found = walk(io.BytesIO(packed))
    assert {found.offset_of(member) for member in found} == {None}
    found.finish()
    assert (found.bytes_read, found.end, found.passed_bytes) == (len(packed),) * 3
    assert found.sha256 == hashlib.sha256(packed).hexdigest()


def test_damage_of_packed_files_is_told_by_their_own_bytes(data: bytes) -> None:
    broken = bytearray(data)
    broken[1024 + 130] ^= 1
    packed = gzip.compress(bytes(broken))
    with pytest.raises(TarDamage, match=r"header checksum .* \(byte 1024 of what is unpacked\)"):
        contents(walk(io.BytesIO(packed)))
    cut = gzip.compress(data)[:-30]
    with pytest.raises(TarDamage) as caught:
        contents(walk(io.BytesIO(cut)))
    assert (caught.value.state, caught.value.offset) == ("truncated", len(cut))
