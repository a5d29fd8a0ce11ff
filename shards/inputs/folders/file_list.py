"""The list of a folder's samples: a Parquet file with a row group for each virtual shard.

It is made when the input is listed, and kept in the run folder, where every worker can read it:
what a virtual shard holds is fixed with the run. Texts that stand in a table are in it themselves.
"""

import atexit
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from math import fsum
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import DamagedFile
from shards.files.scratch import scratch_folder
from shards.inputs.shard import InputShard
from shards.schema import open_parquet
from shards.store import filesystem


@dataclass(slots=True)
class FileRow:
    """One sample: paths below the folder, with the sizes of the files, or what stands for them.

    `text` and `meta` are those of a table's row. `reason` rejects the sample unread.
    """

    key: str
    image: bytes | None = None
    image_bytes: int = 0
    text_file: bytes | None = None
    text_bytes: int = 0
    meta_file: bytes | None = None
    meta_bytes: int = 0
    text: bytes | None = None
    meta: bytes | None = None
    reason: str | None = None
    detail: str | None = None

    @property
    def size_bytes(self) -> int:
        """The bytes that it takes in its shard."""
        inline = len(self.text or b"") + len(self.meta or b"")
        return self.image_bytes + self.text_bytes + self.meta_bytes + inline


_NAMES = tuple(item.name for item in fields(FileRow))
_VALUES = attrgetter(*_NAMES)
_TEXTS = ("key", "reason", "detail")


def _type(name: str) -> pa.DataType:
    if name in _TEXTS:
        return pa.string()
    return pa.int64() if name.endswith("_bytes") else pa.binary()


_SCHEMA = pa.schema([(name, _type(name)) for name in _NAMES])


@dataclass(frozen=True, slots=True)
class Group:
    """One row group as it was written: its number, and what its shard is known by."""

    number: int
    size_bytes: int
    mtime: float | None
    sha256: str


class FileListWriter:
    """Writes rows, and closes a group of them as a shard; keys are made unique within it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = pq.ParquetWriter(path, _SCHEMA, compression="zstd")
        self._groups = 0
        self._rows: list[FileRow] = []
        self._times: list[float] = []
        self._keys: set[str] = set()

    def __enter__(self) -> Self:
        """Return the writer; the file is whole at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        """Count the rows of the group that is open."""
        return len(self._rows)

    def add(self, row: FileRow, times: list[float]) -> None:
        """Add a sample; `times` are those of its files."""
        key, number = row.key, 1
        while row.key in self._keys:
            number += 1
            row.key = f"{key}#{number}"
        self._keys.add(row.key)
        self._rows.append(row)
        self._times += times

    def close_group(self) -> Group:
        """Write the rows since the last group."""
        rows, times = self._rows, self._times
        columns = zip(*map(_VALUES, rows), strict=True)
        arrays = [pa.array(column, _type(n)) for n, column in zip(_NAMES, columns, strict=True)]
        self._file.write_table(pa.table(arrays, schema=_SCHEMA), row_group_size=len(rows))
        group = Group(
            self._groups, sum(row.size_bytes for row in rows), mean_time(times), _digest(rows)
        )
        self._groups += 1
        self._rows, self._times, self._keys = [], [], set()
        return group


def new_list() -> FileListWriter:
    """Begin a list in a scratch folder, where it lies until this process ends."""
    kept = ExitStack()
    atexit.register(kept.close)
    return FileListWriter(kept.enter_context(scratch_folder("files")) / "files.parquet")


def mean_time(times: list[float]) -> float | None:
    """Return the mean of files' times, which a change of any one of them changes."""
    return fsum(times) / len(times) if times else None


def read_files(shard: InputShard) -> Iterator[FileRow]:
    """Yield the samples of a virtual shard; raises DamagedFile if they are not those it names."""
    url = str(shard.listing)
    fs, path = filesystem(url)
    with fs.open(path, "rb") as source, open_parquet(source, url) as file:
        if shard.first >= file.num_row_groups:
            raise DamagedFile(url, f"a row group {shard.first}", file.num_row_groups)
        table = file.read_row_group(shard.first, use_threads=False)
        if table.schema.names != _SCHEMA.names:
            raise DamagedFile(url, "a list of files", table.schema.names)
        rows = [FileRow(**row) for row in table.to_pylist()]
    if _digest(rows) != shard.files_sha256:
        raise DamagedFile(url, f"the files of {shard.shard} as they were listed", "others")
    return iter(rows)


def _digest(rows: list[FileRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        values = [value.hex() if isinstance(value, bytes) else value for value in _VALUES(row)]
        digest.update(json.dumps(values).encode() + b"\n")
    return digest.hexdigest()
