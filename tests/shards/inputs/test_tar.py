"""The walk over a tar sees what `tarfile` sees, counts every byte, and says where damage is."""

import io
import tarfile
from typing import Any

import pytest

from shards.inputs.tar import BLOCK_BYTES, Member, TarDamage, TarReader
from tests.support.tars import read_members

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def walk(data: bytes) -> tuple[list[tuple[Member, bytes]], TarReader]:
    """Read all members of a tar whole."""
    reader = TarReader(io.BytesIO(data))
    return [(member, reader.read(member)) for member in reader], reader


@pytest.mark.parametrize("format", FORMATS)
def test_members_are_those_that_tarfile_sees(tar_bytes: Any, pairs: Any, format: int) -> None:
    long_name = "deep/" * 18 + "x.jpg"
    data = tar_bytes([*pairs(3), (long_name, b"image" * 300), ("empty.txt", b"")], format)
    members, reader = walk(data)
    theirs = [(name.encode(), content) for name, content in read_members(data)]
    assert [(member.name, content) for member, content in members] == theirs
    assert {member.kind for member, _ in members} == {"file"}
    assert reader.has_end_marker
    assert reader.bytes_read == len(data)


def test_members_that_are_not_read_are_skipped(tar_bytes: Any, pairs: Any) -> None:
    data = tar_bytes(pairs(3))
    reader = TarReader(io.BytesIO(data))
    assert len(list(reader)) == 9
    assert reader.bytes_read == len(data)


@pytest.mark.parametrize(
    ("type", "kind"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.DIRTYPE, "directory"),
        (tarfile.FIFOTYPE, "fifo"),
        (tarfile.CHRTYPE, "character device"),
    ],
)
def test_what_is_no_file_says_what_it_is_and_has_no_bytes(type: bytes, kind: str) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.linkname = type, "/etc/passwd"
    members, _ = walk(info.tobuf() + bytes(1024))
    ((member, content),) = members
    assert (member.name.rstrip(b"/"), member.kind, content) == (b"a.jpg", kind, b"")


def test_damage_has_its_place_and_its_member(tar_bytes: Any) -> None:
    data = tar_bytes([("a.jpg", b"i" * 600), ("b.jpg", b"j" * 600)])
    second = 3 * BLOCK_BYTES
    broken = bytearray(data)
    broken[second + 130] ^= 1
    cases = {
        bytes(broken): ("corrupt", second, b"b.jpg"),
        data[: second + 100]: ("truncated", second + 100, None),
        data[: second + BLOCK_BYTES + 100]: ("truncated", second + BLOCK_BYTES + 100, b"b.jpg"),
        b"\x1f\x8b" + data: ("compressed", 0, None),
        b"text" * 200: ("not_a_tar", 0, None),
    }
    for content, expected in cases.items():
        with pytest.raises(TarDamage) as caught:
            walk(content)
        damage = caught.value
        assert (damage.state, damage.offset) == expected[:2]
        assert expected[2] is None or damage.name == expected[2]


def test_a_missing_end_marker_is_no_damage_but_known(tar_bytes: Any) -> None:
    data = tar_bytes([("a.jpg", b"image")])[: 2 * BLOCK_BYTES]
    members, reader = walk(data)
    assert [content for _, content in members] == [b"image"]
    assert not reader.has_end_marker
