"""The walk over a tar sees what `tarfile` sees, counts every byte, and says where damage is."""

import io
import tarfile
from typing import Any

import pytest

from shards.inputs.tars.tar import BLOCK_BYTES, Member, TarDamage, TarReader
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


# Members of other kinds


def member(name: str, data: bytes = b"", type: bytes = tarfile.REGTYPE, **fields: bytes) -> bytes:
    """Make a member's header and content; `fields` are laid over the header by their place."""
    info = tarfile.TarInfo(name)
    info.type, info.size = type, len(data)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for place, value in fields.items():
        at = int(place.removeprefix("at"))
        header[at : at + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % BLOCK_BYTES)


LAST = member("z.jpg", b"last")


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (member("a.npy", b"x" * 700, b"S"), "sparse file"),
        (
            member("a.npy", b"", b"S", at482=b"\1")
            + bytes(504) + b"\1" + bytes(7)
            + bytes(BLOCK_BYTES),
            "sparse file",
        ),
        (member("photos of 2019", b"", b"V"), "volume label"),
        (member("photos", b"", b"V", at124=b"garbage here"), "unreadable size"),
        (member("a.bin", b"rest" * 200, b"M"), "part of a file of several volumes"),
        (member("folder", b"Yfile\0", b"D"), "listing of a GNU dump"),
        (member("names", b"old", b"N"), "list of long names"),
        (member("acl", b"user::rwx", b"A"), "unknown type 'A'"),
        (member("what", b"ever", b"~"), "unknown type '~'"),
        (member("a.npy", b"", at124=b"\xff" * 12), "unreadable size: negative number"),
        (member("a.npy", b"", at124=b"12x4        "), "unreadable size"),
        (member("a.npy", b"data", b"7"), "file"),
        (member("a.npy", b"image", at124=b"\x80" + (5).to_bytes(11, "big")), "file"),
        (member("a.npy", b"data", at136=b"\xff" * 12), "file"),  # long before 1970
        (member("a", b"", b"1", at124=b"00000001000 "), "hard link"),
    ],
)  # fmt: skip
def test_odd_members_are_passed_by(odd: bytes, kind: str) -> None:
    for data in (odd + LAST, odd + odd + LAST):
        members, _ = walk(data + bytes(1024))
        assert all(kind in member.kind for member, _ in members[:-1])
        assert (members[-1][0].name, members[-1][1]) == (b"z.jpg", b"last")


@pytest.mark.parametrize(
    ("odd", "name", "kind"),
    [
        (member("x", b"5 a=b\n", b"x"), b"z.jpg", "member with an unreadable extended header"),
        (
            member("x", b"\xff\xfe" * 30, b"x"),
            b"z.jpg",
            "member with an unreadable extended header",
        ),
        (member("x", b"7 size=", b"x"), b"z.jpg", "member with an unreadable extended header"),
        (member("x", b"30 size=" + b"9" * 21 + b"\n", b"x"), b"z.jpg", "unreadable"),
        (member("x", bytes((1 << 20) + 1), b"x"), b"z.jpg", "member with an extended header of"),
        (member("x", b"n" * ((1 << 20) + 1), b"L"), b"z.jpg", "member with an extended header of"),
        (member("x", b"n" * ((1 << 20) + 1), b"K"), b"z.jpg", "file"),
        (member("x", b"n" * ((1 << 20) + 1), b"g"), b"z.jpg", "file"),
        (member("x", b"12 path=abc\n8 path=\n", b"x"), b"z.jpg", "file"),
        (member("x", b"19 mtime=-12345.678\n", b"x"), b"z.jpg", "unreadable"),  # one byte short
        (member("x", b"20 mtime=-12345.678\n", b"x"), b"z.jpg", "file"),
        (member("x", b"11 path=y\xff\n", b"X"), b"y\xff", "file"),
        (member("x", b"25 GNU.sparse.name=s.jpg\n", b"x"), b"s.jpg", "sparse file"),
    ],
)
def test_extended_headers_end_no_archive(odd: bytes, name: bytes, kind: str) -> None:
    members, _ = walk(odd + LAST + bytes(1024))
    ((found, content),) = members
    assert (found.name, content) == (name, b"last")
    assert kind in found.kind
    assert found.start == 0


def test_an_unreadable_size_is_told_where_no_header_follows() -> None:
    odd = member("a.npy", b"", at124=b"12x4        ") + b"content".ljust(512, b"\1")
    with pytest.raises(TarDamage, match="unreadable size") as caught:
        walk(LAST + odd + LAST)
    assert (caught.value.offset, caught.value.name) == (len(LAST), b"a.npy")


@pytest.mark.parametrize("format", FORMATS)
def test_seeking_sees_what_reading_sees(tar_bytes: Any, pairs: Any, format: int) -> None:
    data = tar_bytes([*pairs(4), ("deep/" * 18 + "x.jpg", b"image" * 300)], format)
    for cut in [len(data), *range(0, len(data), 700)]:
        ends = []
        for size_bytes in (None, cut):
            reader, members = TarReader(io.BytesIO(data[:cut]), size_bytes=size_bytes), []
            try:
                members += list(reader)
                ending = None
            except TarDamage as damage:
                ending = damage.args
            ends.append((members, ending, reader.bytes_read, reader.has_end_marker))
        assert ends[0] == ends[1]


def test_a_walk_can_begin_at_any_member(tar_bytes: Any, pairs: Any) -> None:
    data = tar_bytes([*pairs(3), ("n" * 200 + ".jpg", b"image")], tarfile.GNU_FORMAT)
    members, _ = walk(data)
    for place, (first, _) in enumerate(members):
        file = io.BytesIO(data)
        file.seek(first.start)
        assert [found for found in TarReader(file, first.start)] == [m for m, _ in members[place:]]
        assert data[first.content :].startswith(members[place][1])
        assert first.end % BLOCK_BYTES == 0
