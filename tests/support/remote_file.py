"""A file in a store to which each read is a request, counted."""

import io
import uuid
from typing import BinaryIO, cast

import fsspec
from fsspec.spec import AbstractBufferedFile

BLOCK_BYTES = 5_000


class Forwards(io.RawIOBase):
    """A file that can only be read forwards, a little at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 700))


class RemoteFile(AbstractBufferedFile):
    """Bytes behind fsspec's own cache, read ahead in blocks."""

    def __init__(self, data: bytes) -> None:
        fs, path = fsspec.filesystem("memory"), f"/remote/{uuid.uuid4().hex}"
        fs.pipe_file(path, data)
        self.requests = 0
        super().__init__(fs, path, block_size=BLOCK_BYTES, size=len(data))

    def _fetch_range(self, start: int, end: int) -> bytes:
        self.requests += 1
        return bytes(self.fs.cat_file(self.path, start=start, end=end))


def forwards(data: bytes) -> BinaryIO:
    """Give bytes as a stream."""
    return cast(BinaryIO, Forwards(data))


def remote(data: bytes) -> BinaryIO:
    """Give bytes as a file of a store."""
    return cast(BinaryIO, RemoteFile(data))
