"""A tar file, header by header: every byte accounted for, and every damage noticed.

`tarfile` and webdataset take a bad header for the end of the archive and lose the rest without a
word. This walk reads once, forwards, from any stream, checks each header's checksum, never opens a
link, holds one member at a time, and says where and how the archive ends. It reads USTAR, GNU long
names, and PAX paths and sizes; members of other kinds are passed by.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from shards.inputs.tars.stream import CHUNK_BYTES, Readable

BLOCK_BYTES = 512
_EXTENSION_LIMIT_BYTES = 1 << 20
_MOST_DIGITS = 20  # of a size; Python takes long to read thousands
_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"LZIP", "lzip"),
    (b"\x1f\x9d", "compress"),
)
_FILES = (b"0", b"\0", b"7")
_EMPTY_KINDS = {  # whatever their size field says
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"5": "directory",
    b"6": "fifo",
}
_ODD_KINDS = {
    b"D": "listing of a GNU dump",
    b"M": "part of a file of several volumes",
    b"N": "list of long names",
    b"S": "sparse file",
    b"V": "volume label",
}
_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK = (b"x", b"X"), b"g", b"L", b"K"
_EXTENSIONS = (*_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK)
_SPARSE = b"S"


class TarDamage(ValueError):  # noqa: N818 - it says what is so, and stops nothing
    """Where and how an archive breaks off; `name` is the member it hit, if that can be told."""

    def __init__(self, state: str, offset: int, detail: str, name: bytes | None = None) -> None:
        super().__init__(state, offset, detail, name)
        self.state, self.offset, self.detail, self.name = state, offset, detail, name


@dataclass(frozen=True, slots=True)
class Member:
    """One member's headers, which begin at `start`; its bytes stand at `content`.

    `kind` is `file` or what else it is, in words.
    """

    name: bytes
    kind: str
    size_bytes: int
    start: int = 0
    content: int = 0

    @property
    def end(self) -> int:
        """Where it ends, padding included."""
        return self.content + self.size_bytes + -self.size_bytes % BLOCK_BYTES


@dataclass(slots=True)
class _Extension:
    """What extended headers said about the member that follows; `fault` is why they cannot."""

    start: int
    name: bytes | None = None
    size_bytes: int | None = None
    sparse: bool = False
    fault: str | None = None


class TarReader:
    """One pass over an archive; `read` gives a member's bytes, otherwise they are skipped.

    It begins with the headers of a member at `start`. With a `size_bytes` of the file it seeks past
    what is skipped.
    """

    def __init__(self, file: Readable, start: int = 0, size_bytes: int | None = None) -> None:
        self._file, self._size_bytes = file, size_bytes
        self._unread: Member | None = None
        self._unsized: TarDamage | None = None  # what it is if no header follows
        self.bytes_read = start
        self.has_end_marker = False

    def __iter__(self) -> Iterator[Member]:
        """Yield every member in order; raises TarDamage at the first fault."""
        extension: _Extension | None = None
        while True:
            offset = self.bytes_read
            block = self._bytes(BLOCK_BYTES)
            if not block.lstrip(b"\0"):
                self._end(block, offset, extension)
                return
            extension = extension or _Extension(offset)
            member = self._header(block, offset, extension)
            if member is not None:
                extension = None
                self._unread = member
                yield member
                if self._unread is not None:
                    self._skip(member)

    def read(self, member: Member) -> bytes:
        """Return the bytes of the member just yielded; raises TarDamage if they are cut off."""
        self._unread = None
        data = self._bytes(member.size_bytes)
        self._padding(member, len(data))
        return data

    def _end(self, block: bytes, offset: int, extension: _Extension | None) -> None:
        """Check what stands before and behind the end."""
        if extension is not None and extension.fault is not None:
            raise TarDamage("corrupt", extension.start, extension.fault, extension.name)
        if block:
            self.has_end_marker = True
            self._check_tail()
        elif extension is not None:
            raise TarDamage("truncated", offset, "a header is missing", extension.name)

    def _header(self, block: bytes, offset: int, extension: _Extension) -> Member | None:
        """Read one header block; extended headers are taken into `extension` and give None."""
        try:
            _check_block(block, offset, extension.name)
        except TarDamage as damage:
            raise self._unsized or damage from None
        self._unsized = None
        kind = block[156:157]
        name = extension.name if extension.name is not None else _block_name(block)
        if kind in _EMPTY_KINDS:
            return Member(name, _EMPTY_KINDS[kind], 0, extension.start, self.bytes_read)
        size_bytes = self._size(block, offset, extension, name)
        if kind in _EXTENSIONS:
            self._extend(extension, kind, Member(b"", "extended header", size_bytes))
            return None
        if kind == _SPARSE:
            self._skip_map(block, name)
        words = _kind_in_words(kind, extension, self._unsized)
        return Member(name, words, size_bytes, extension.start, self.bytes_read)

    def _size(self, block: bytes, offset: int, extension: _Extension, name: bytes) -> int:
        """Read a member's size; one that cannot be read is none, unless no header follows."""
        if extension.size_bytes is not None:
            return extension.size_bytes
        try:
            return _number(block[124:136])
        except ValueError as error:
            self._unsized = TarDamage("corrupt", offset, f"unreadable size: {error}", name)
            return 0

    def _extend(self, extension: _Extension, kind: bytes, header: Member) -> None:
        """Take what matters from an extended header; one that cannot be read is a fault of it."""
        if kind in (_GLOBAL, _LONG_LINK):
            self._skip(header)
        elif header.size_bytes > _EXTENSION_LIMIT_BYTES:
            extension.fault = (
                f"extended header of {header.size_bytes} bytes, limit {_EXTENSION_LIMIT_BYTES}"
            )
            self._skip(header)
        elif kind == _LONG_NAME:
            extension.name = self.read(header).split(b"\0", 1)[0]
        else:
            try:
                _apply_pax(self.read(header), extension)
            except TarDamage:
                raise
            except ValueError as error:
                extension.fault = f"unreadable extended header: {error}"

    def _skip_map(self, block: bytes, name: bytes) -> None:
        """Skip the blocks that go on with the map of a GNU sparse file."""
        goes_on = block[482]
        while goes_on:
            more = self._bytes(BLOCK_BYTES)
            if len(more) < BLOCK_BYTES:
                detail = "the file ends inside the map of a sparse file"
                raise TarDamage("truncated", self.bytes_read, detail, name)
            goes_on = more[504]

    def _check_tail(self) -> None:
        """After the end marker only zeros may follow (a joined second archive would be lost)."""
        while chunk := self._bytes(CHUNK_BYTES):
            if chunk.count(0) != len(chunk):
                zeros = len(chunk) - len(chunk.lstrip(b"\0"))
                offset = self.bytes_read - len(chunk) + zeros
                raise TarDamage("corrupt", offset, "other bytes follow the end of the archive")

    def _skip(self, member: Member) -> None:
        self._unread = None
        self._padding(member, self._pass(member.size_bytes))

    def _pass(self, size_bytes: int) -> int:
        """Leave so many bytes behind; return how many there were."""
        if self._size_bytes is not None:
            left = max(min(size_bytes, self._size_bytes - self.bytes_read), 0)
            self.bytes_read += left
            cast(BinaryIO, self._file).seek(self.bytes_read)
            return left
        left = size_bytes
        while left and (chunk := self._bytes(min(left, CHUNK_BYTES))):
            left -= len(chunk)
        return size_bytes - left

    def _padding(self, member: Member, got_bytes: int) -> None:
        padding = -member.size_bytes % BLOCK_BYTES
        if got_bytes < member.size_bytes or self._pass(padding) < padding:
            detail = f"the file ends inside a member of {member.size_bytes} bytes"
            raise TarDamage("truncated", self.bytes_read, detail, member.name or None)

    def _bytes(self, size_bytes: int) -> bytes:
        """Read up to `size_bytes`, fewer only at the end of the file.

        In chunks, since a header may claim more bytes than there are.
        """
        data = self._file.read(min(size_bytes, CHUNK_BYTES)) if size_bytes else b""
        if data and len(data) < size_bytes:
            data = b"".join((data, *_chunks(self._file, size_bytes - len(data))))
        self.bytes_read += len(data)
        return data


def _chunks(file: Readable, left: int) -> Iterator[bytes]:
    while left > 0 and (chunk := file.read(min(left, CHUNK_BYTES))):
        yield chunk
        left -= len(chunk)


def _kind_in_words(kind: bytes, extension: _Extension, unsized: TarDamage | None) -> str:
    """Say what a member is: a file only where nothing odd was said of it."""
    fault = unsized.detail if unsized is not None else extension.fault
    if fault is not None:
        return f"member with an {fault}"
    if extension.sparse:
        return "sparse file"
    if kind in _FILES:
        return "file"
    return _ODD_KINDS.get(kind, f"member of the unknown type {kind.decode('ascii', 'replace')!r}")


def _check_block(block: bytes, offset: int, name: bytes | None) -> None:
    """Refuse a header that is cut short or does not add up."""
    if len(block) == BLOCK_BYTES and _checksum_fits(block):
        return
    if offset == 0 and block[257:262] != b"ustar":
        for magic, kind in _COMPRESSED:
            if block.startswith(magic):
                raise TarDamage("compressed", 0, f"compressed with {kind}")
        raise TarDamage("not_a_tar", 0, "no tar header at the start")
    if len(block) < BLOCK_BYTES:
        guess = name or (_block_name(block) if b"\0" in block[:100] else None)
        raise TarDamage("truncated", offset + len(block), "the file ends inside a header", guess)
    raise TarDamage("corrupt", offset, "header checksum does not fit", name or _block_name(block))


def is_header(block: bytes) -> bool:
    """Check whether a block is a member's header, wherever it stands in a file."""
    is_ustar = len(block) == BLOCK_BYTES and block[257:262] == b"ustar"
    return is_ustar and _checksum_fits(block)


def _checksum_fits(block: bytes) -> bool:
    try:
        stored = _number(block[148:156])
    except ValueError:
        return False
    blanked = block[:148] + b" " * 8 + block[156:]
    total = _sum(blanked[:256]) + _sum(blanked[256:])
    if stored == total:
        return True
    return stored == total - 256 * sum(byte > 127 for byte in blanked)  # of old, bytes were signed


def _sum(few: bytes) -> int:
    """Add up to 256 bytes, as the lower half of Adler's checksum does in a tenth of the time."""
    return (zlib.adler32(few) & 0xFFFF) - 1


def _number(field: bytes) -> int:
    """Read a header's number: octal text, or base 256 where the first byte says so."""
    if field[0] & 0x80:
        if field[0] == 0xFF:
            raise ValueError("negative number")
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.split(b"\0", 1)[0].strip()
    if text.strip(b"01234567"):
        raise ValueError(f"{text!r} is not octal")
    return int(text or b"0", 8)


def _block_name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":  # GNU's own format keeps other things in the prefix field
        prefix = block[345:500].split(b"\0", 1)[0]
        return prefix + b"/" + name if prefix else name
    return name


def _apply_pax(payload: bytes, extension: _Extension) -> None:
    """Take path, size and the signs of a sparse file from `LENGTH KEY=VALUE\\n` records."""
    at = 0
    while at < len(payload):
        digits, blank, _ = payload[at : at + 20].partition(b" ")
        length = int(digits) if digits.isdigit() and blank else 0
        record = payload[at + len(digits) + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if length <= 0 or at + length > len(payload) or not record.endswith(b"\n") or not equals:
            raise ValueError(f"bad record at byte {at}")
        if key in (b"path", b"GNU.sparse.name"):
            extension.name = value or None  # an empty value takes back what was said
        elif key == b"size":
            if not value.isdigit() or len(value) > _MOST_DIGITS:
                raise ValueError(f"size {value[:20]!r}")
            extension.size_bytes = int(value)
        extension.sparse |= key.startswith(b"GNU.sparse.")
        at += length
