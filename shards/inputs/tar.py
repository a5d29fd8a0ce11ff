"""A tar file, header by header: every byte accounted for, and every damage noticed.

`tarfile` and webdataset take a bad header for the end of the archive and lose the rest without a
word. This walk reads once, forwards, from any stream, checks each header's checksum, never opens a
link, holds one member at a time, and says where and how the archive ends. It reads USTAR, GNU long
names, and PAX paths and sizes.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK_BYTES = 512
_CHUNK_BYTES = 1 << 20
_EXTENSION_LIMIT_BYTES = 1 << 20
_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"LZIP", "lzip"),
    (b"\x1f\x9d", "compress"),
)
_KINDS = {
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"5": "directory",
    b"6": "fifo",
}
_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK = (b"x", b"X"), b"g", b"L", b"K"


class TarDamage(ValueError):  # noqa: N818 - it says what is so, and stops nothing
    """Where and how an archive breaks off; `name` is the member it hit, if that can be told."""

    def __init__(self, state: str, offset: int, detail: str, name: bytes | None = None) -> None:
        super().__init__(state, offset, detail, name)
        self.state, self.offset, self.detail, self.name = state, offset, detail, name


@dataclass(frozen=True, slots=True)
class Member:
    """One member's header; `kind` is `file` or what else it is, in words."""

    name: bytes
    kind: str
    size_bytes: int


@dataclass(slots=True)
class _Extension:
    """What extended headers said about the member that follows."""

    name: bytes | None = None
    size_bytes: int | None = None
    sparse: bool = False


class TarReader:
    """One pass over an archive; `read` gives a member's bytes, otherwise they are skipped."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._unread: Member | None = None
        self.bytes_read = 0
        self.has_end_marker = False

    def __iter__(self) -> Iterator[Member]:
        """Yield every member in order; raises TarDamage at the first fault."""
        extension = _Extension()
        while True:
            offset = self.bytes_read
            block = self._bytes(BLOCK_BYTES)
            if block.count(0) == len(block):
                if block:
                    self.has_end_marker = True
                    self._check_tail()
                elif extension != _Extension():
                    raise TarDamage("truncated", offset, "a header is missing", extension.name)
                return
            member = self._header(block, offset, extension)
            if member is not None:
                extension = _Extension()
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

    def drain(self) -> None:
        """Read to the end of the file, so that the hash covers all of it."""
        while self._bytes(_CHUNK_BYTES):
            pass

    @property
    def sha256(self) -> str:
        """Hash of all bytes read so far, in hex."""
        return self._sha256.hexdigest()

    def _header(self, block: bytes, offset: int, extension: _Extension) -> Member | None:
        """Read one header block; extended headers are taken into `extension` and give None."""
        _check_block(block, offset, extension.name)
        kind = block[156:157]
        try:
            size_bytes = _number(block[124:136])
        except ValueError as error:
            name = extension.name or _block_name(block)
            raise TarDamage("corrupt", offset, f"unreadable size: {error}", name) from error
        if kind in (*_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK):
            self._extend(extension, kind, size_bytes, offset)
            return None
        if kind == b"S":
            raise TarDamage(
                "corrupt", offset, "GNU sparse members are not read", _block_name(block)
            )
        name = extension.name if extension.name is not None else _block_name(block)
        if kind in _KINDS:
            return Member(name, _KINDS[kind], 0)
        if extension.size_bytes is not None:
            size_bytes = extension.size_bytes
        return Member(name, "sparse file" if extension.sparse else "file", size_bytes)

    def _extend(self, extension: _Extension, kind: bytes, size_bytes: int, offset: int) -> None:
        if size_bytes > _EXTENSION_LIMIT_BYTES:
            detail = f"extended header of {size_bytes} bytes, limit {_EXTENSION_LIMIT_BYTES}"
            raise TarDamage("corrupt", offset, detail, extension.name)
        payload = self.read(Member(b"", "extended header", size_bytes))
        if kind == _LONG_NAME:
            extension.name = payload.split(b"\0", 1)[0]
        elif kind in _PAX:
            try:
                _apply_pax(payload, extension)
            except ValueError as error:
                detail = f"unreadable extended header: {error}"
                raise TarDamage("corrupt", offset, detail, extension.name) from error

    def _check_tail(self) -> None:
        """After the end marker only zeros may follow (a joined second archive would be lost)."""
        while chunk := self._bytes(_CHUNK_BYTES):
            if chunk.count(0) != len(chunk):
                zeros = len(chunk) - len(chunk.lstrip(b"\0"))
                offset = self.bytes_read - len(chunk) + zeros
                raise TarDamage("corrupt", offset, "other bytes follow the end of the archive")

    def _skip(self, member: Member) -> None:
        self._unread = None
        left = member.size_bytes
        while left:
            chunk = self._bytes(min(left, _CHUNK_BYTES))
            if not chunk:
                break
            left -= len(chunk)
        self._padding(member, member.size_bytes - left)

    def _padding(self, member: Member, got_bytes: int) -> None:
        padding = -member.size_bytes % BLOCK_BYTES
        if got_bytes < member.size_bytes or len(self._bytes(padding)) < padding:
            detail = f"the file ends inside a member of {member.size_bytes} bytes"
            raise TarDamage("truncated", self.bytes_read, detail, member.name or None)

    def _bytes(self, size_bytes: int) -> bytes:
        """Read up to `size_bytes`, fewer only at the end of the file.

        In chunks, since a header may claim more bytes than there are.
        """
        chunks: list[bytes] = []
        left = size_bytes
        while left > 0 and (chunk := self._file.read(min(left, _CHUNK_BYTES))):
            chunks.append(chunk)
            self._sha256.update(chunk)
            left -= len(chunk)
        self.bytes_read += size_bytes - left
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


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
    total = sum(blanked)
    return stored in (total, total - 256 * sum(byte > 127 for byte in blanked))  # signed, of old


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
            extension.name = value
        elif key == b"size":
            if not value.isdigit():
                raise ValueError(f"size {value[:20]!r}")
            extension.size_bytes = int(value)
        extension.sparse |= key.startswith(b"GNU.sparse.")
        at += length
