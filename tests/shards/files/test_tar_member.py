"""Members are byte for byte those of Python's own tarfile, whatever they are called."""

import io
import tarfile

import pytest

from shards.files import tar_member as members
from shards.files.tar_member import tar_member


def written_by_tarfile(name: str, data: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(data))
        return buffer.getvalue()[: tar.offset]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 70_000])
@pytest.mark.parametrize("length", [1, 99, 100, 101, 250])
def test_bytes_are_those_of_tarfile(length: int, size: int) -> None:
    name, data = ("shard/000~%2F" + "n" * length)[-length:], b"x" * size
    assert b"".join(tar_member(name, data)) == written_by_tarfile(name, data)


@pytest.mark.parametrize("name", ["s/größe.jpg", "s/\udcff.jpg", "s/a b'.json", "s/\x7f.txt"])
def test_odd_names_are_written_as_ever(name: str) -> None:
    assert b"".join(tar_member(name, b"content")) == written_by_tarfile(name, b"content")


@pytest.mark.parametrize("size", [8**11 - 1, 8**11])
def test_a_size_beyond_the_field_has_a_header_of_its_own(size: int) -> None:
    member = tarfile.TarInfo("s/k.jpg")
    member.size = size
    assert members._header("s/k.jpg", size) == member.tobuf(tarfile.PAX_FORMAT)
