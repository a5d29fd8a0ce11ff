"""The way through a shard: as its members stand, unpacked where it is gzip, or by an index.

In a local file the headers are read first: where the members of a key stand apart, an index brings
them together. A remote file is read as it stands, until someone asks to look ahead.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO

from shards.inputs.tars.index import Index, IndexedReader, scan
from shards.inputs.tars.stream import HashedFile, Unpacked, is_remote, seekable_size
from shards.inputs.tars.tar import Member, TarDamage, TarReader
from shards.inputs.text import TextSource

HasFields = Callable[[bytes], bool]


class Walk:
    """The members of a shard, once; `has_fields` tells of a key given out that it had fields."""

    def __init__(self, source: BinaryIO, text: TextSource, has_fields: HasFields) -> None:
        self._source, self._text, self._has_fields = source, text, has_fields
        self._size_bytes = seekable_size(source)
        self._file = HashedFile(source)
        self._unpacked = Unpacked(self._file) if self._file.is_packed else None
        self._reader: TarReader | IndexedReader = TarReader(self._unpacked or self._file)
        self._is_scanned = False
        self.index: Index | None = None
        if self._size_bytes is not None and not is_remote(source):
            self.look_ahead(0)

    def __iter__(self) -> Iterator[Member]:
        """Yield members, and where an index takes over those from its start on.

        Raises TarDamage at the first fault.
        """
        reader = None
        try:
            while reader is not self._reader:
                reader = self._reader
                for member in reader:
                    yield member
                    if reader is not self._reader:
                        break
        except TarDamage as damage:
            raise self._as_packed(damage) from None
        if self._unpacked is not None and self._unpacked.fault is not None:
            raise TarDamage(*self._unpacked.fault)

    def read(self, member: Member) -> bytes:
        """Return the bytes of the member just yielded; raises TarDamage if they are cut off."""
        try:
            return self._reader.read(member)
        except TarDamage as damage:
            raise self._as_packed(damage) from None

    def look_ahead(self, start: int) -> bool:
        """Read all headers from `start` on, once; return whether an index of them takes over."""
        if self._size_bytes is None or self._unpacked is not None or self._is_scanned:
            return False
        self._is_scanned = True
        self.index = scan(self._source, self._size_bytes, self._text, start, self._has_fields)
        if self.index is None:
            self._file.resume()
            return False
        self._reader = IndexedReader(self._source, self.index, start)
        return True

    def finish(self) -> None:
        """Read what is left of the file, so that the hash covers all of it."""
        if self.index is not None:
            self._file.resume()
        self._file.drain()

    @property
    def has_end_marker(self) -> bool:
        """Whether the end of the archive was seen."""
        return self._reader.has_end_marker

    @property
    def ignored(self) -> Counter[str]:
        """Fields beside a key's own that the index leaves out, by ending."""
        return Counter() if self.index is None else self.index.ignored

    @property
    def sha256(self) -> str:
        """Hash of the file's bytes, in hex, as far as they were read in order."""
        return self._file.sha256

    @property
    def bytes_read(self) -> int:
        """Bytes of the file that were read in order."""
        return self._file.bytes_read

    @property
    def passed_bytes(self) -> int:
        """Bytes of the file that belong to what was yielded, which never grow less."""
        if isinstance(self._reader, IndexedReader):
            # the headers of a sample that is read again were read before
            return max(self._reader.passed_bytes, self._file.bytes_read)
        return self._file.bytes_read if self._unpacked is None else self._unpacked.used_bytes

    @property
    def end(self) -> int:
        """Where the walk ended in the file."""
        return self._file.bytes_read if self._unpacked is not None else self._reader.bytes_read

    def cut_state(self, key: bytes) -> str | None:
        """Return how the damage is called that may have cost a key a member; None if none may."""
        if self.index is None or hash(key) not in self.index.cut:
            return None
        return self.index.damage.state if self.index.damage is not None else "truncated"

    def offset_of(self, member: Member) -> int | None:
        """Return where a member's bytes stand in the file; None if they are packed."""
        return member.content if self._unpacked is None else None

    def _as_packed(self, damage: TarDamage) -> TarDamage:
        """Say of a packed file what is wrong with it, not what that looks like when unpacked."""
        if self._unpacked is None:
            return damage
        if self._unpacked.fault is not None:
            return TarDamage(*self._unpacked.fault, damage.name)
        detail = f"{damage.detail} (byte {damage.offset} of what is unpacked)"
        return TarDamage(damage.state, self._file.bytes_read, detail, damage.name)
