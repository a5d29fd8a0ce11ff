"""The reader of a virtual shard: some pictures of a folder, each with its text."""

import hashlib
import os
from collections.abc import Iterator

from fsspec.implementations.local import LocalFileSystem

from shards.inputs.folders.file_list import FileRow, mean_time, read_files
from shards.inputs.folders.listing import LARGEST_FILE_BYTES
from shards.inputs.names import extension_of
from shards.inputs.reader import RawSample, ShardState, State
from shards.inputs.shard import InputShard, changed_since_listed
from shards.inputs.text import TextSource
from shards.reasons import SampleReason
from shards.store import filesystem, url_of


class FolderReader:
    """Iterate once for the samples; then `state`, `sha256` and `bytes_read` are known.

    The hash is of what was read: keys, pictures and texts, in order.
    """

    def __init__(self, shard: InputShard, text: TextSource) -> None:
        self._shard, self._text = shard, text
        self._fs, self._folder = filesystem(shard.url)
        self._digest = hashlib.sha256()
        self._state: ShardState | None = None
        self.bytes_read = 0

    def __iter__(self) -> Iterator[RawSample]:
        """Yield one row per sample, in the order of the list."""
        for index, row in enumerate(read_files(self._shard)):
            yield self._read(index, row)
        self._state = ShardState(state=State.COMPLETE)

    @property
    def state(self) -> ShardState:
        """How the shard ended; RuntimeError before the last row was taken."""
        if self._state is None:
            raise RuntimeError("a shard's state is known after its last row")
        return self._state

    @property
    def sha256(self) -> str:
        """Hash of all that was read, in hex, once the last row was taken."""
        return self._digest.hexdigest()

    def _read(self, index: int, row: FileRow) -> RawSample:
        reason, detail = row.reason, row.detail
        try:
            image = self._bytes(row.image)
            text = row.text if row.text_file is None else self._bytes(row.text_file)
            meta = row.meta if row.meta_file is None else self._bytes(row.meta_file)
        except PermissionError as error:
            image = text = meta = None
            reason, detail = SampleReason.IMAGE_MISSING, f"cannot be read: {error.strerror}"
            self.bytes_read += row.size_bytes
        else:
            parts = (image, text, meta)
            self.bytes_read += row.size_bytes if reason else sum(len(part or b"") for part in parts)
        for part in (row.key.encode(), image, text, meta):
            self._digest.update(b"%d\0" % (-1 if part is None else len(part)))
            self._digest.update(part or b"")
        name = os.fsdecode(row.image or b"")
        return RawSample(
            index=index,
            key=row.key,
            image=image,
            image_ext=extension_of(name) or None,
            text=text if row.meta_file is None else self._text.read(text, meta),
            meta=meta,
            reason=reason,
            detail=detail,
            end_offset=self.bytes_read,
            image_offset=None if image is None else 0,
            image_url=None if image is None else url_of(self._fs, self._path(name)),
        )

    def _bytes(self, name: bytes | None) -> bytes | None:
        if name is None:
            return None
        try:
            with self._fs.open(self._path(os.fsdecode(name)), "rb") as file:
                return bytes(file.read(LARGEST_FILE_BYTES + 1))
        except FileNotFoundError as error:
            raise changed_since_listed(self._shard, os.fsdecode(name), "no such file") from error

    def _path(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"


def time_of(shard: InputShard) -> float | None:
    """Return what `mtime` of a virtual shard is now; in a store, what it was."""
    fs, folder = filesystem(shard.url)
    if not isinstance(fs, LocalFileSystem):
        return shard.mtime
    names = [
        os.fsdecode(name)
        for row in read_files(shard)
        for name in (row.image, row.text_file, row.meta_file)
        if name is not None
    ]
    return mean_time([os.stat(f"{folder.rstrip('/')}/{name}").st_mtime for name in names])  # noqa: PTH116
