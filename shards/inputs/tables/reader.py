"""The reader of Parquet shards: a few rows at a time, whatever the size of the row groups.

No path in a table is ever opened. A row group that cannot be read costs its rows, which are one
rejected row, and no other group.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as kinds

from shards.errors import DamagedFile
from shards.inputs.names import IMAGE_EXTENSIONS, extension_of
from shards.inputs.reader import RawSample, ShardState, State
from shards.inputs.shard import InputShard
from shards.inputs.tables.columns import as_meta, pick, plain_columns, rows_of, values_of
from shards.inputs.tables.listing import bytes_of
from shards.naming import key_text
from shards.reasons import SampleReason
from shards.schema import as_damage
from shards.store import filesystem

_HELD_BYTES, _MOST_ROWS = 256 << 20, 64  # of pictures, at once
_LARGEST_BYTES = 256 << 20
_LONGEST_KEY_BYTES = 4096
_BUFFER_BYTES = 1 << 20
_FAILURE = ("status", "error_message")  # of a download, as img2dataset writes it


class TableReader:
    """Iterate once for the samples; then `state`, `sha256` and `bytes_read` are known.

    The hash is of what was read: keys, pictures, texts and fields, in order.
    """

    def __init__(self, shard: InputShard) -> None:
        self._shard = shard
        self._digest = hashlib.sha256()
        self._keys: set[str] = set()
        self._count = 0
        self._state: ShardState | None = None
        self.bytes_read = 0

    def __iter__(self) -> Iterator[RawSample]:
        """Yield one row per row of the table, in order."""
        fs, path = filesystem(self._shard.url)
        fault = ShardState(state=State.EMPTY, detail="no rows in it")
        with fs.open(path, "rb") as source:
            try:
                with as_damage(self._shard.url), _open(source) as file:
                    yield from self._groups(file)
                    is_whole = self._shard.count == file.num_row_groups
                if is_whole:
                    self.bytes_read = source.seek(0, os.SEEK_END)
            except DamagedFile as error:
                fault = ShardState(state=State.NOT_PARQUET, detail=str(error.actual))
                self.bytes_read = self._shard.size_bytes
        if self._state is None:
            self._state = ShardState(state=State.COMPLETE) if self._count else fault

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

    def _groups(self, file: pq.ParquetFile) -> Iterator[RawSample]:
        first, end = self._shard.first, self._shard.first + self._shard.count
        row = sum(file.metadata.row_group(group).num_rows for group in range(first))
        for group in range(first, min(end, file.num_row_groups)):
            begin, size_bytes = self.bytes_read, bytes_of(file.metadata, group, 1)
            rows, done = file.metadata.row_group(group).num_rows, 0
            try:
                for raw in _rows(file, group, self._shard):
                    self.bytes_read = begin + size_bytes * (done + 1) // max(rows, done + 1)
                    yield self._told(raw, row + done)
                    done += 1
            except DamagedFile as error:
                detail = f"row group {group}, rows {row + done} to {row + rows - 1}: {error.actual}"
                self._state = self._state or ShardState(state=State.CORRUPT, detail=detail)
                yield self._told(_rejected(SampleReason.SHARD_CORRUPT, detail), row + done)
            self.bytes_read, row = begin + size_bytes, row + rows

    def _told(self, raw: RawSample, row: int) -> RawSample:
        """Number a sample, and make its key its own."""
        key, number = raw.key or f"{row:08}", self._count
        if key in self._keys:
            key = f"{key}#{row}"
        self._keys.add(key)
        self._count += 1
        for part in (key.encode(), raw.image, raw.text, raw.meta):
            self._digest.update(b"%d\0" % (-1 if part is None else len(part)))
            self._digest.update(part or b"")
        return replace(raw, index=number, key=key, end_offset=self.bytes_read)


def _open(source: Any) -> pq.ParquetFile:  # noqa: ANN401 - any file
    # buffered, so that a column of a row group is read page by page
    return pq.ParquetFile(source, page_checksum_verification=True, buffer_size=_BUFFER_BYTES)


def _rows(file: pq.ParquetFile, group: int, shard: InputShard) -> Iterator[RawSample]:
    """Yield the rows of a row group, still without numbers; raises DamagedFile."""
    image = str(shard.image_column)
    plain = [name for name in plain_columns(file.schema_arrow) if name != image]
    wanted = list(dict.fromkeys([image, *filter(None, [shard.text_column]), *plain]))
    batches = file.iter_batches(
        _rows_at_once(file, group, image), row_groups=[group], columns=wanted, use_threads=False
    )
    while True:
        with as_damage(shard.url):
            batch = next(batches, None)
            if batch is None:
                return
            samples = _samples(batch, shard, plain)
        yield from samples


def _rows_at_once(file: pq.ParquetFile, group: int, image: str) -> int:
    """Say how many rows fit into memory, were each as large as all of the group's pictures."""
    found = file.metadata.row_group(group)
    columns = (found.column(number) for number in range(found.num_columns))
    size_bytes = sum(
        column.total_uncompressed_size
        for column in columns
        if column.path_in_schema.partition(".")[0] == image
    )
    return max(1, min(_HELD_BYTES // max(size_bytes, 1), _MOST_ROWS))


def _samples(batch: pa.RecordBatch, shard: InputShard, plain: list[str]) -> list[RawSample]:
    column = batch.column(str(shard.image_column))
    paths: list[bytes | None] = [None] * batch.num_rows
    if kinds.is_struct(column.type):
        if "path" in [part.name for part in column.type]:
            paths = list(values_of(pc.struct_field(column, "path")))
        column = pc.struct_field(column, "bytes")
    words: list[bytes | None] = [None] * batch.num_rows
    if shard.text_column is not None:
        words = list(values_of(batch.column(shard.text_column)))
    key_column = pick(plain, ["key"])
    keys: list[bytes | None] = [None] * batch.num_rows
    if key_column is not None and kinds.is_string(batch.column(key_column).type):
        keys = list(values_of(batch.column(key_column)))
    rows = rows_of(batch.select(plain))
    values = zip(values_of(column), paths, words, keys, rows, strict=True)
    return [_sample(*value, str(shard.image_column)) for value in values]


def _sample(
    image: bytes | None,
    path: bytes | None,
    text: bytes | None,
    key: bytes | None,
    row: dict[str, Any],
    column: str,
) -> RawSample:
    name = os.fsdecode(path or b"")
    if image is not None and len(image) > _LARGEST_BYTES:
        detail = f"picture of {len(image)} bytes, limit {_LARGEST_BYTES}"
        return _rejected(SampleReason.UNSAFE_MEMBER, detail)
    endings = [one for one in (extension_of(name), column.lower()) if one in IMAGE_EXTENSIONS]
    failure = ": ".join(str(row[name]) for name in _FAILURE if row.get(name))
    return RawSample(
        index=0,
        key=key_text((key or _stem(path))[:_LONGEST_KEY_BYTES]),
        image=image,
        image_ext=endings[0] if endings else "jpg",
        text=text,
        meta=as_meta(row),
        reason=None,
        detail=" ".join(failure.split())[:_LONGEST_KEY_BYTES] or None if image is None else None,
        end_offset=0,
    )


def _stem(path: bytes | None) -> bytes:
    """Return a picture's path without its ending; none of a path that is none to name by."""
    stem, dot, _ = (path or b"").rpartition(b".")
    return (stem if dot else path or b"").lstrip(b"/")


def _rejected(reason: SampleReason, detail: str) -> RawSample:
    return RawSample(0, "", None, None, None, None, reason, detail, 0)
