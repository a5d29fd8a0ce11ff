"""The bytes of a shard: read once and hashed, unpacked on the way, or fetched here and there."""

import hashlib
import io
import zlib
from typing import BinaryIO, Protocol, cast

from fsspec.spec import AbstractBufferedFile

CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
# A gzip file of zeros unpacks to a thousand times its size, tars of small files to some thirty.
_FREE_BYTES, _MOST_TIMES = 64 << 20, 200
_PACKED_BYTES = 64 << 10
_FETCHED_BYTES = 256 << 10  # at least, by one request


class Readable(Protocol):
    """What can be read forwards."""

    def read(self, size_bytes: int, /) -> bytes:
        """Read up to so many bytes; none at the end."""


class HashedFile:
    """A file read forwards, counted and hashed; whoever seeks in it meanwhile does no harm."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._ahead = file.read(len(GZIP_MAGIC))
        self.bytes_read = 0
        self.is_packed = self._ahead == GZIP_MAGIC

    def read(self, size_bytes: int) -> bytes:
        """Read up to so many bytes; none at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:size_bytes], self._ahead[size_bytes:]
            if len(data) < size_bytes:
                data += self._file.read(size_bytes - len(data))
        else:
            data = self._file.read(size_bytes)
        self._sha256.update(data)
        self.bytes_read += len(data)
        return data

    def resume(self) -> None:
        """Go back to where it was read to, after someone sought in the file."""
        self._ahead = b""
        self._file.seek(self.bytes_read)

    def drain(self) -> None:
        """Read to the end of the file, so that the hash covers all of it."""
        while self.read(CHUNK_BYTES):
            pass

    @property
    def sha256(self) -> str:
        """Hash of all bytes read so far, in hex."""
        return self._sha256.hexdigest()


class Unpacked:
    """What a gzip file holds, in bounded memory; it ends where the file is broken.

    `fault` then says how: (`truncated` or `corrupt`, at which byte of the file, and why).
    """

    def __init__(self, file: HashedFile) -> None:
        self._file = file
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._packed = b""  # read, but not unpacked yet
        self._unpacked_bytes = 0
        self._is_over = False
        self.fault: tuple[str, int, str] | None = None

    @property
    def used_bytes(self) -> int:
        """Bytes of the packed file that went into what was read."""
        return self._file.bytes_read - len(self._packed)

    def read(self, size_bytes: int) -> bytes:
        """Read up to so many bytes; none at the end, or at the fault."""
        data = b""
        while size_bytes > 0 and not data and not self._is_over:
            try:
                data = self._unpacker.decompress(self._packed, size_bytes)
            except zlib.error as error:
                self._end("corrupt", f"broken gzip: {error}")
                break
            self._packed = self._unpacker.unconsumed_tail
            if self._unpacker.eof:
                self._next_stream(self._unpacker.unused_data)
            elif not data and not self._packed:
                self._packed = self._file.read(_PACKED_BYTES)
                if not self._packed:
                    self._end("truncated", "the gzip file is cut off")
        self._unpacked_bytes += len(data)
        if self._unpacked_bytes > _FREE_BYTES + _MOST_TIMES * self._file.bytes_read:
            self._end("corrupt", f"gzip that unpacks to more than {_MOST_TIMES} times its size")
        return data

    def _next_stream(self, rest: bytes) -> None:
        """Begin with the stream behind one that ended; zeros may fill up a file."""
        while not (rest := rest.lstrip(b"\0")) and (more := self._file.read(_PACKED_BYTES)):
            rest = more
        if len(rest) < len(GZIP_MAGIC):
            rest += self._file.read(_PACKED_BYTES)
        if not rest:
            self._is_over = True
        elif rest.startswith(GZIP_MAGIC):
            self._unpacker, self._packed = zlib.decompressobj(zlib.MAX_WBITS | 16), rest
        else:
            self._end("corrupt", "other bytes follow the end of the gzip stream")

    def _end(self, state: str, why: str) -> None:
        self._is_over, self.fault = True, (state, self._file.bytes_read, why)


class RangeFile:
    """A remote file that is read here and there: each read asks for its own bytes alone.

    What fsspec gives to read forwards asks for megabytes more.
    """

    def __init__(self, file: BinaryIO) -> None:
        remote = cast(AbstractBufferedFile, file)
        self._fs, self._path, self._size_bytes = remote.fs, remote.path, int(remote.size)
        self._at = self._begin = 0
        self._data = b""

    def seek(self, offset: int) -> None:
        """Go to a place in the file."""
        self._at = offset

    def read(self, size_bytes: int) -> bytes:
        """Read so many bytes, fewer at the end of the file only."""
        if not self._begin <= self._at <= self._at + size_bytes <= self._begin + len(self._data):
            end = min(self._at + max(size_bytes, _FETCHED_BYTES), self._size_bytes)
            self._begin, self._data = self._at, b""
            if end > self._at:
                self._data = self._fs.cat_file(self._path, start=self._at, end=end)
        first = self._at - self._begin
        data = self._data[first : first + size_bytes]
        self._at += len(data)
        return data


def seekable_size(file: BinaryIO) -> int | None:
    """Return a file's size if it can be sought in, and None for streams."""
    try:
        size_bytes = file.seek(0, io.SEEK_END)
        file.seek(0)
    # asked by doing it: some of fsspec's streams say that they are seekable, and raise any of these
    except (OSError, ValueError, AttributeError, NotImplementedError):
        return None
    return size_bytes


def is_remote(file: BinaryIO) -> bool:
    """Check whether seeking costs a request."""
    return isinstance(file, AbstractBufferedFile)
