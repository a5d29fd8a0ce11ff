"""Tables of texts in a folder, as Hugging Face's imagefolder has them, and which row is whose.

`metadata.jsonl`, `.csv` and `.parquet` name pictures by their path from the table's folder. Rows go
into a scratch database, for a table may be larger than memory.
"""

import csv
import io
import posixpath
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import fsspec

from shards.errors import DamagedFile
from shards.files.notice import tell_once
from shards.inputs.shard import InputError
from shards.inputs.sidecar import read_object
from shards.inputs.tables.columns import (
    Row,
    as_meta,
    pick,
    plain_columns,
    rows_of,
    text_column,
)
from shards.inputs.text import TextSource
from shards.schema import open_parquet
from shards.store import url_of

_FILE_COLUMNS = ("file_name", "filename", "file", "image_path", "image", "path")
_LOOKED_AT = 100  # rows, for the names of columns
_MOST_LINE_BYTES = 16 << 20
_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class TableRow:
    """What a row says of a picture; `path` is below the input, None where it leads out of it."""

    path: bytes | None
    name: str
    text: bytes | None
    meta: bytes
    where: str


class MetadataRows:
    """The rows of all tables of an input, by the path of the picture that they name."""

    def __init__(self, scratch: Path, text: TextSource) -> None:
        self._text = text
        self._database = sqlite3.connect(scratch)
        self._database.executescript(
            "pragma journal_mode=off; pragma synchronous=off;"
            "create table rows (path blob, depth int, name text, words blob, meta blob, place text,"
            " used int default 0)"
        )

    def __enter__(self) -> Self:
        """Return the rows."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the database."""
        self._database.close()

    def add_table(self, fs: fsspec.AbstractFileSystem, path: str, folder: str) -> None:
        """Add a table that lies in `folder`, a path below the input; InputError for no such one."""
        url, depth = url_of(fs, path), folder.count("/") + bool(folder)
        with fs.open(path, "rb") as file, _told_of(url):
            rows = _numbered(file, url)
            first = list(islice(rows, _LOOKED_AT))
            columns = list(dict.fromkeys(name for _, row in first for name in row))
            if not columns:
                return
            names = self._columns(columns, url)
            values = (_values(row, names, folder, where) for where, row in chain(first, rows))
            self._database.executemany(
                "insert into rows values (?, ?, ?, ?, ?, ?, 0)",
                ((path, depth, *others) for path, *others in values),
            )

    def index(self) -> None:
        """Make rows quick to find, once all tables are in."""
        self._database.execute("create index by_path on rows (path)")

    def of(self, path: bytes) -> list[TableRow]:
        """Return the rows that name a picture, of the table nearest above it."""
        rows = self._database.execute(
            "select path, name, words, meta, place, depth from rows where path = ? order by rowid",
            (path,),
        ).fetchall()
        if not rows:
            return []
        self._database.execute("update rows set used = 1 where path = ?", (path,))
        nearest = max(row[-1] for row in rows)
        if any(row[-1] < nearest for row in rows):
            tell_once("rows of a table further up are left out where one nearer names the picture")
        return [TableRow(*row[:-1]) for row in rows if row[-1] == nearest]

    def unused(self) -> Iterator[TableRow]:
        """Yield the rows whose pictures were not asked for."""
        with closing(self._database.cursor()) as cursor:
            cursor.execute(
                "select path, name, words, meta, place from rows where not used order by rowid"
            )
            yield from (TableRow(*row) for row in cursor)

    def _columns(self, columns: list[str], url: str) -> tuple[str, str | None]:
        """Find the columns of names and of texts, and say so where they are not the usual ones."""
        file = pick(columns, _FILE_COLUMNS)
        text = text_column(columns, self._text)
        listed = ", ".join(columns)
        if file is None:
            raise InputError(
                f"{url}: missing_column: expected file_name, found {listed}; rename the column "
                "that names the pictures"
            )
        if text is None and not self._text.is_none:
            raise InputError(
                f"{url}: missing_column: expected a column of texts (text), found {listed}; name "
                "it with input.text: json:COLUMN, or say none"
            )
        if (file, text) != ("file_name", "text"):
            tell_once(f"{url}: pictures by the column {file!r}, texts from {text!r}")
        return file, text


@contextmanager
def _told_of(url: str) -> Iterator[None]:
    try:
        yield
    except DamagedFile as error:
        raise InputError(f"{url}: not_parquet: {error.actual}; write it again") from error


def _values(
    row: Row, columns: tuple[str, str | None], folder: str, where: str
) -> tuple[bytes | None, str, bytes | None, bytes, str]:
    name, text = row.get(columns[0]), row.get(columns[1]) if columns[1] else None
    words = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else None
    named = name if isinstance(name, str) else ""
    path = posixpath.normpath(posixpath.join(folder, named)) if named else ""
    leads_out = path.startswith(("/", "../")) or path in ("", ".", "..") or "\0" in path
    raw = None if leads_out else path.encode("utf-8", "surrogateescape")
    return raw, named.encode("utf-8", "replace").decode()[:4096], words, as_meta(row), where


def _numbered(file: IO[bytes], url: str) -> Iterator[tuple[str, Row]]:
    """Yield a table's rows, each with where it stands."""
    if url.lower().endswith(".jsonl"):
        yield from _json_lines(file, url)
    elif url.lower().endswith(".csv"):
        yield from _csv_rows(file, url)
    else:
        yield from _parquet_rows(file, url)


def _json_lines(file: IO[bytes], url: str) -> Iterator[tuple[str, Row]]:
    number = 0
    while line := file.readline(_MOST_LINE_BYTES + 1):
        number += 1
        if len(line) > _MOST_LINE_BYTES:
            raise InputError(f"{url}: line {number} is longer than {_MOST_LINE_BYTES:,} bytes")
        if not line.strip():
            continue
        found = read_object(line)
        where = f"line {number} of {url}"
        yield where, found[1] if found is not None else {}


def _csv_rows(file: IO[bytes], url: str) -> Iterator[tuple[str, Row]]:
    text = io.TextIOWrapper(
        cast(Any, file), encoding="utf-8-sig", errors="surrogateescape", newline=""
    )
    csv.field_size_limit(_MOST_LINE_BYTES)
    reader = csv.DictReader(text)
    try:
        for row in reader:
            row.pop(cast(Any, None), None)  # more fields than columns
            yield f"line {reader.line_num} of {url}", dict(row)
    except csv.Error as error:
        raise InputError(f"{url}: line {reader.line_num} cannot be read: {error}") from error
    finally:
        text.detach()


def _parquet_rows(file: IO[bytes], url: str) -> Iterator[tuple[str, Row]]:
    number = 0
    with open_parquet(cast(Any, file), url) as table:
        columns = plain_columns(table.schema_arrow)
        for batch in table.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
            for row in rows_of(batch):
                yield f"row {number} of {url}", row
                number += 1
