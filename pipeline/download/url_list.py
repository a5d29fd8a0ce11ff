"""Lists of addresses: Parquet, CSV, TSV, JSON lines or plain lines; one file or many, any store.

What a file's name does not say is seen in its beginning: the separator, a header or none, the
encoding. Rows come one by one, so that a list may be larger than memory.
"""

import csv
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import fsspec
import pyarrow.parquet as pq

from pipeline.download.columns import ListError, is_address, unnamed
from shards.files.walk import walk_files
from shards.inputs.finding.near import near_to
from shards.schema import as_damage
from shards.store import filesystem, url_of

_KINDS = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".txt": "lines",
    ".jsonl": "json", ".ndjson": "json", ".json": "json",
}  # fmt: skip
_EXPORT, _EXPORTED = "export.json", "train-"  # its record, and its files of what is kept
_SEPARATORS = {"csv": ",", "tsv": "\t"}
_SNIFFED_BYTES, SNIFFED_ROWS = 1 << 20, 100
_SEPARATOR_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_MOST_IN_CELL = 1 << 24

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ListFile:
    """One file of a list, and how it is read; `notes` say what its name does not."""

    fs: fsspec.AbstractFileSystem
    path: str
    kind: str
    encoding: str = "utf-8"
    separator: str = ","
    header: tuple[str, ...] | None = None  # as made up, where it has none
    quoted: bool = True
    notes: tuple[str, ...] = field(default=())

    @property
    def url(self) -> str:
        """Its absolute URL."""
        return url_of(self.fs, self.path)

    def rows(self) -> Iterator[Row]:
        """Read it, row by row; raises ListError, DamagedFile."""
        if self.kind == "parquet":
            return _parquet_rows(self)
        return {"json": _json_rows, "lines": _line_rows}.get(self.kind, _cell_rows)(self)

    def names(self) -> list[str]:
        """Return the names of its columns, as far as its first rows tell."""
        if self.kind == "parquet":
            with self.fs.open(self.path, "rb") as file, as_damage(self.url):
                return list(pq.read_schema(file).names)
        if self.header is not None:
            return list(self.header)
        if self.kind == "json":
            return list(dict.fromkeys(name for row in self.sample() for name in row))
        with _text(self) as text:
            return next(_records(self, text), [])

    def sample(self) -> list[Row]:
        """Read its first rows."""
        return list(islice(self.rows(), SNIFFED_ROWS))


def find_lists(source: str) -> list[ListFile]:
    """Find the files of a list that a path, folder or pattern names, sorted; raises ListError."""
    fs, path = filesystem(source)
    if fs.isdir(path):
        paths = [name for name in walk_files(fs, path) if _kind_by_name(name)]
        if fs.exists(f"{path}/{_EXPORT}"):  # what `capfilt export --form index` wrote
            paths = [name for name in paths if PurePosixPath(name).name.startswith(_EXPORTED)]
    elif fs.exists(path):
        paths = [path]
    else:
        paths = [str(name) for name in fs.glob(path)] if any(c in path for c in "*?[") else []
    if not paths:
        known = ", ".join(_KINDS)
        raise ListError(f"{source!r}: no list of addresses is there ({known}){near_to(source)}")
    return [_opened(fs, name) for name in sorted(paths)]


def _kind_by_name(path: str) -> str | None:
    name = PurePosixPath(path.lower().removesuffix(".gz"))
    return _KINDS.get(name.suffix)


def _opened(fs: fsspec.AbstractFileSystem, path: str) -> ListFile:
    """See how a file is to be read."""
    with fs.open(path, "rb", compression="infer") as file:
        start = file.read(_SNIFFED_BYTES)
    kind = "parquet" if start[:4] == b"PAR1" else _kind_by_name(path)
    if kind == "parquet":
        return ListFile(fs, path, kind)
    if kind is None:
        kind = "json" if start.lstrip()[:1] in (b"{", b"[") else "csv"
    encoding, notes = _encoding(start), []
    if encoding not in ("utf-8", "utf-8-sig"):
        notes.append(f"it is not UTF-8, and read as {encoding}")
    header = (unnamed(1),) if kind == "lines" else None
    found = ListFile(fs, path, kind, encoding, header=header, notes=tuple(notes))
    return found if kind in ("json", "lines") else _with_cells(found, start)


def _encoding(start: bytes) -> str:
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")
    ):  # fmt: skip
        if start.startswith(mark):
            return encoding
    try:
        start[: start.rfind(b"\n") + 1 or None].decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _with_cells(file: ListFile, start: bytes) -> ListFile:
    """Find the separator that gives rows of as many cells, and whether there is a header."""
    expected = _SEPARATORS[file.kind]
    text = start.decode(file.encoding, "replace")
    quoted = expected != "\t" or _is_quoted(text)
    tries = {}
    for separator in (expected, *(s for s in _SEPARATOR_NAMES if s != expected)):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            records = [r for r in islice(reader, SNIFFED_ROWS) if r]
        except csv.Error:
            continue
        widths = [len(record) for record in records]
        even = widths.count(widths[0]) / len(widths) if widths and widths[0] > 1 else 0.0
        tries[separator] = (even, records)
    separator = max(tries, key=lambda s: tries[s][0], default=expected)
    if not tries or tries[separator][0] == tries.get(expected, (0.0, []))[0]:
        separator = expected  # of one column, too
    notes = list(file.notes)
    if separator != expected:
        notes.append(f"its cells are divided by {_SEPARATOR_NAMES[separator]}")
    records = tries[separator][1] if tries else []
    header = None
    if records and any(map(is_address, records[0])):
        header = tuple(unnamed(number + 1) for number in range(len(records[0])))
        notes.append("it has no header: columns are called by their numbers")
    quoted = quoted if separator == expected else True
    return ListFile(
        file.fs, file.path, file.kind, file.encoding, separator, header, quoted, tuple(notes)
    )


def _is_quoted(text: str) -> bool:
    """Whether quotes enclose cells, every one of them: else they are signs like others."""
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True):
            pass
    except csv.Error:
        return False
    return True


def _text(file: ListFile) -> io.TextIOWrapper:
    raw: BinaryIO = file.fs.open(file.path, "rb", compression="infer")
    return io.TextIOWrapper(raw, encoding=file.encoding, errors="replace", newline="")


def _records(file: ListFile, text: io.TextIOWrapper) -> Iterator[list[str]]:
    csv.field_size_limit(_MOST_IN_CELL)
    quoting = csv.QUOTE_MINIMAL if file.quoted else csv.QUOTE_NONE
    reader = csv.reader(text, delimiter=file.separator, quoting=quoting)  # type: ignore[arg-type]
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ListError(f"{file.url}, line {reader.line_num}: {error}") from None
        if record:
            yield record


def _cell_rows(file: ListFile) -> Iterator[Row]:
    with _text(file) as text:
        records = _records(file, text)
        names: Sequence[str] = file.header or next(records, ())
        for record in records:
            cells = [cell if cell != "" else None for cell in record]
            cells += [None] * (len(names) - len(cells))
            yield dict(zip(names, cells, strict=False))


def _line_rows(file: ListFile) -> Iterator[Row]:
    with _text(file) as text:
        for line in text:
            if line.strip():
                yield {unnamed(1): line.strip()}


def _json_rows(file: ListFile) -> Iterator[Row]:
    with _text(file) as text:
        first = text.read(1)
        while first.isspace():
            first = text.read(1)
        if first == "[":
            yield from (_object(file, row, n) for n, row in enumerate(_array(file, text), 1))
            return
        for number, line in enumerate(text, 1):
            whole, first = first + line, ""
            if whole.strip():
                yield _object(file, _parsed(file, whole, number), number)


def _array(file: ListFile, text: io.TextIOWrapper) -> list[Any]:
    return list(_parsed(file, "[" + text.read(), 1))


def _parsed(file: ListFile, text: str, line: int) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ListError(f"{file.url}, line {line}: no JSON: {error}") from None


def _object(file: ListFile, value: Any, number: int) -> Row:  # noqa: ANN401 - any JSON value
    if not isinstance(value, dict):
        raise ListError(f"{file.url}, row {number}: expected a JSON object, found {value!r:.60}")
    return value


def _parquet_rows(file: ListFile) -> Iterator[Row]:
    with file.fs.open(file.path, "rb") as opened, as_damage(file.url):
        for batch in pq.ParquetFile(opened).iter_batches(use_threads=False):
            yield from batch.to_pylist()


def as_json(values: Mapping[str, Any]) -> str | None:
    """Write the other columns of a row as one JSON object; None where there are none."""
    there = {name: value for name, value in values.items() if value is not None}
    return json.dumps(_plain(there), ensure_ascii=True, default=str) if there else None


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value of a table
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    return value


def as_text(value: Any) -> str | None:  # noqa: ANN401 - any value of a table
    """Return a cell as a text that can be stored; of a list of texts, the first."""
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    if isinstance(value, Mapping):
        value = value.get("text")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).encode(sys.getdefaultencoding(), "replace").decode()
