"""The tables (samples, texts, decisions; scores), and how they are read.

Facts (samples, texts, scores) and decisions are separate tables, so that a new threshold rewrites
only the decisions. Every file carries its schema version; readers take older versions and refuse
newer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.errors import CapfiltError, DamagedFile, UsageError
from shards.files.regular import irregular_kind

# 2: commits, snapshots and views are sealed, and name the content of a file beside its bytes.
# 3: samples have the language of their web text.
SCHEMA_VERSION = 3
VERSION_KEY = b"capfilt.schema_version"
# How Arrow says that bytes make no sense: an OSError of its own has no number, one of a disk has.
_NONSENSE = (pa.ArrowException, UnicodeError, OverflowError, OSError)


class SchemaError(UsageError):
    """A table that lacks a column, holds a wrong type, or has a version this code cannot read."""


def versioned_schema(fields: Sequence[tuple[str, pa.DataType, bool]]) -> pa.Schema:
    """Make a schema of (name, type, may be null), with the schema version in its metadata."""
    columns = [pa.field(name, kind, nullable=nullable) for name, kind, nullable in fields]
    return pa.schema(columns, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})


SAMPLES = versioned_schema(
    [
        ("shard", pa.string(), False),
        ("index", pa.int32(), False),
        ("key", pa.string(), True),
        ("status", pa.string(), False),
        ("reason", pa.string(), True),
        ("detail", pa.string(), True),
        ("text_reason", pa.string(), True),
        ("notes", pa.list_(pa.string()), True),
        ("width", pa.int32(), True),
        ("height", pa.int32(), True),
        ("format", pa.string(), True),
        ("bytes", pa.int64(), True),
        ("sha256", pa.string(), True),
        ("phash", pa.binary(32), True),
        ("web_text", pa.string(), True),
        ("language", pa.string(), True),
        ("url", pa.string(), True),
        ("meta", pa.string(), True),
    ]
)
TEXTS = versioned_schema(
    [
        ("shard", pa.string(), False),
        ("index", pa.int32(), False),
        ("text_no", pa.int16(), False),
        ("origin", pa.string(), False),
        ("author", pa.string(), True),
        ("text", pa.string(), False),
        ("itm", pa.float32(), True),
        ("itm_logit", pa.float32(), True),
        ("itc", pa.float32(), True),
        ("logprob", pa.float32(), True),
        ("tokens", pa.int16(), True),
        ("truncated", pa.bool_(), True),
    ]
)
DECISIONS = versioned_schema(
    [
        ("shard", pa.string(), False),
        ("index", pa.int32(), False),
        ("text_no", pa.int16(), False),
        ("keep", pa.bool_(), False),
        ("reason", pa.string(), False),
    ]
)
# What is no column of `texts`: one row per text and score; a text without a row has no such score.
SCORES = versioned_schema(
    [
        ("shard", pa.string(), False),
        ("index", pa.int32(), False),
        ("text_no", pa.int16(), False),
        ("scorer", pa.string(), False),
        ("name", pa.string(), False),
        ("value", pa.float32(), False),
    ]
)
# What a view leaves out: `reason` is null for the keeper that each group has, which may stand in
# another run. `kind` is exact, near, semantic or listed; `distance` is that of difference hashes,
# in bits, `similarity` the cosine of embeddings, where they were compared.
GROUPS = versioned_schema(
    [
        ("group", pa.int64(), True),
        ("run", pa.string(), True),
        ("shard", pa.string(), False),
        ("index", pa.int32(), False),
        ("key", pa.string(), True),
        ("sha256", pa.string(), True),
        ("kind", pa.string(), True),
        ("distance", pa.int16(), True),
        ("similarity", pa.float32(), True),
        ("reason", pa.string(), True),
    ]
)


class SampleRow(TypedDict, total=False):
    """A row of the samples table; a row on its way, or read in part, lacks some of the columns."""

    shard: str
    index: int
    key: str | None
    status: str
    reason: str | None
    detail: str | None
    text_reason: str | None
    notes: list[str] | None
    width: int | None
    height: int | None
    format: str | None
    bytes: int | None
    sha256: str | None
    phash: bytes | None
    web_text: str | None
    language: str | None
    url: str | None
    meta: str | None


class TextRow(TypedDict, total=False):
    """A row of the texts table, whole or in part."""

    shard: str
    index: int
    text_no: int
    origin: str
    author: str | None
    text: str
    itm: float | None
    itm_logit: float | None
    itc: float | None
    logprob: float | None
    tokens: int | None
    truncated: bool | None


class ScoredTextRow(TextRow, total=False):
    """A text's row with the score that it is chosen by."""

    score: float | None


class DecisionRow(TypedDict, total=False):
    """A row of the decisions table, whole or in part."""

    shard: str
    index: int
    text_no: int
    keep: bool
    reason: str


class ScoreRow(TypedDict, total=False):
    """A row of the scores table, whole or in part."""

    shard: str
    index: int
    text_no: int
    scorer: str
    name: str
    value: float


class JudgedTextRow(TextRow, total=False):
    """A text's row joined with its decision."""

    keep: bool
    reason: str


SCHEMAS = {"samples": SAMPLES, "texts": TEXTS, "decisions": DECISIONS}  # that every shard has
ALL_SCHEMAS = {**SCHEMAS, "scores": SCORES}


def check_schema(schema: pa.Schema, expected: pa.Schema, where: str) -> None:
    """Refuse a table that does not fit `expected`, naming file, column, expected and found."""
    if schema.equals(expected, check_metadata=True):
        return
    version = _version(schema, where)
    for field in expected:
        position = schema.get_field_index(field.name)
        if position < 0:
            if version < SCHEMA_VERSION and field.nullable:
                continue
            raise SchemaError(
                f"{where}: column {field.name!r} ({field.type}) is missing; "
                f"found columns {', '.join(schema.names) or 'none'}"
            )
        if schema.field(position).type != field.type:
            raise SchemaError(
                f"{where}: column {field.name!r} should be {field.type}, "
                f"found {schema.field(position).type}"
            )


@contextmanager
def open_parquet(source: str | BinaryIO | pa.Buffer, where: str) -> Iterator[pq.ParquetFile]:
    """Open a file for the block; raises DamagedFile, also for what is read in the block.

    `where` names the file in errors.
    """
    ahead = not isinstance(source, str)  # a local disk is as near as the threads that would help
    if isinstance(source, str) and (kind := irregular_kind(source)):  # it would be waited for
        raise DamagedFile(where, "a Parquet file", kind)
    with (
        as_damage(where),
        pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=ahead) as file,
    ):
        yield file


@contextmanager
def as_damage(where: str) -> Iterator[None]:
    """Turn what Arrow raises in the block over a damaged file into DamagedFile."""
    try:
        yield
    except CapfiltError:
        raise
    except FileNotFoundError as error:
        raise DamagedFile(where, "a Parquet file", "none: it is gone") from error
    except _NONSENSE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedFile(where, "a whole Parquet file", error) from error


def read_bytes(data: bytes, where: str) -> pa.Table:
    """Read a small Parquet file that is in memory; raises DamagedFile.

    No thread of Arrow's has a part in it, and no Python file: one that lets go of such a file, or
    still runs, as the process ends aborts it now and then (apache/arrow issue 33975).
    """
    with open_parquet(pa.BufferReader(data), where) as file:
        return file.read(use_threads=False)


def read_table(
    source: str | BinaryIO | pa.Buffer,
    table: str,
    where: str,
    columns: list[str] | None = None,
    shard: str | None = None,
) -> pa.Table:
    """Read one of the tables, checked; columns an older version lacks come as null.

    Of a file that several shards share, `shard` names the one whose rows are wanted. `where` names
    the file in errors. Raises SchemaError, and DamagedFile.
    """
    expected = ALL_SCHEMAS[table]
    wanted = expected.names if columns is None else columns
    with open_parquet(source, where) as file:
        check_schema(file.schema_arrow, expected, where)
        names = wanted if shard is None else {*wanted, "shard"}
        present = [name for name in file.schema_arrow.names if name in names]
        groups = range(file.num_row_groups) if shard is None else groups_of(file, shard)
        read = file.read_row_groups(groups, present, use_threads=False)  # as in `read_bytes`
    if shard is not None:
        read = read.filter(pc.equal(read["shard"], shard))
    return _completed(read, [expected.field(name) for name in wanted])


def groups_of(file: pq.ParquetFile, shard: str) -> list[int]:
    """Number the row groups that may hold rows of a shard, by what their statistics say."""
    place = file.schema_arrow.get_field_index("shard")
    groups = []
    for number in range(file.num_row_groups):
        said = file.metadata.row_group(number).column(place).statistics
        if said is None or not said.has_min_max or said.min <= shard <= said.max:
            groups.append(number)
    return groups


def arrow_rows(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Turn rows into a table of exactly `schema`; an unknown column is an error, not dropped."""
    names = set(schema.names)
    for row in rows:
        if not row.keys() <= names:
            raise SchemaError(f"no such column: {', '.join(sorted(row.keys() - names))}")
    return pa.Table.from_pylist(rows, schema=schema)


def _version(schema: pa.Schema, where: str) -> int:
    text = (schema.metadata or {}).get(VERSION_KEY, b"")
    if not text.isdigit():
        raise SchemaError(
            f"{where}: no capfilt schema version in its metadata; not a capfilt table"
        )
    check_version(int(text), where)
    return int(text)


def check_version(version: int, where: str, newest: int = SCHEMA_VERSION) -> None:
    """Refuse a version that is newer than this code (SchemaError); `where` names the file."""
    if version > newest:
        raise SchemaError(
            f"{where}: schema version {version} is newer than {newest}, the newest this "
            "capfilt reads; update capfilt"
        )


def _completed(table: pa.Table, fields: list[pa.Field]) -> pa.Table:
    for position, field in enumerate(fields):
        if field.name not in table.column_names:
            table = table.add_column(position, field, pa.nulls(len(table), field.type))
    return table.select([field.name for field in fields])
