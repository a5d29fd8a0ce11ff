"""SQL over a run: DuckDB with the tables of its shards, read where they lie."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.fs

from shards.errors import DamagedFile, UsageError
from shards.files.scratch import scratch_folder
from shards.query.limits import QueryLimits, QueryWatch
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard, table_files
from shards.schema import ALL_SCHEMAS, SCHEMAS, check_schema, open_parquet
from shards.store import Store

if TYPE_CHECKING:
    import duckdb

_QUESTIONS = {"SELECT", "EXPLAIN", "PRAGMA", "CALL", "MULTI"}  # DuckDB's kinds; the last: PIVOT
_NO_FILES = "files cannot be read here, only the tables samples, texts, scores and decisions"
_MISSING = re.compile("Table with name (.+?) does not exist")
_ROWS = 1_000  # taken from DuckDB at a time
_SHARDS_AT_A_TIME = 1_000
_READERS = 16  # of footers; an object store answers many at once


class QueryError(UsageError):
    """SQL that DuckDB refuses; the message is DuckDB's."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a question gives: the names of the columns, each once, and the rows as they come."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def connect(
    run: Run,
    shards: Sequence[SnapshotShard],
    tables: Iterable[str] = tuple(SCHEMAS),
    limits: QueryLimits | None = None,
) -> "Iterator[duckdb.DuckDBPyConnection]":
    """Open a database with the tables (`samples`, `texts`, `decisions`, `scores`) of the shards.

    They are read through Arrow data sets: from any fsspec store, whatever signs the names hold.
    Nothing else can be read or written through the connection. Raises SchemaError, and DamagedFile,
    also for what fails in the block because a file is damaged.
    """
    wanted = list(tables)
    with (
        database({table: data_set(run, shards, table) for table in wanted}, limits) as connection,
        naming_damage(run, shards, wanted),
    ):
        yield connection


@contextmanager
def naming_damage(
    run: Run, shards: Sequence[SnapshotShard], tables: Iterable[str]
) -> Iterator[None]:
    """Turn a question that failed over a damaged file of these tables into DamagedFile.

    DuckDB does not say which file that is, so that they are read again, until it shows.
    """
    import duckdb

    try:
        yield
    except (duckdb.Error, QueryError) as error:
        cause = error.__cause__ if isinstance(error, QueryError) else error
        if not isinstance(cause, duckdb.InvalidInputException | duckdb.IOException):
            raise  # a question that was asked amiss
        for table in tables:
            for file in table_files(shards, table):
                read_data(run, file)
        raise


@contextmanager
def database(
    tables: Mapping[str, pa.dataset.Dataset], limits: QueryLimits | None = None
) -> "Iterator[duckdb.DuckDBPyConnection]":
    """Open a database with these tables, and no way to any other file or variable.

    What does not fit into its memory goes to a scratch folder.
    """
    import duckdb  # a tenth of a second, and not every user of this room asks questions

    with scratch_folder("sql") as spill:
        config = limits.config if limits else {}
        with duckdb.connect(config={**config, "temp_directory": str(spill)}) as connection:
            for name, table in tables.items():
                connection.register(name, table)
            connection.execute(
                "SET python_enable_replacements = false; SET enable_external_access = false; "
                "SET lock_configuration = true"
            )
            yield connection


def run_query(
    connection: "duckdb.DuckDBPyConnection", sql: str, limits: QueryLimits | None = None
) -> QueryResult:
    """Ask one question; raises QueryError and QueryLimitError, also while rows are taken."""
    watch = QueryWatch(connection, limits or QueryLimits())
    with _as_query_errors():
        kinds = [statement.type.name for statement in connection.extract_statements(sql)]
    count = len(kinds)
    if count > 1:
        raise QueryError(
            f"{count} SQL statements, of which only the last would answer; ask one, with WITH name "
            "AS (SELECT …) for what it builds on"
        )
    for kind in kinds:
        if kind not in _QUESTIONS:
            raise QueryError(
                f"{kind} has no effect here: a run is only read, and nothing is kept from one "
                "question to the next; ask with SELECT, and WITH name AS (SELECT …) for what it "
                "builds on"
            )
    with _as_query_errors(sql), watch.work():
        result = connection.execute(sql)
    if result is None or result.description is None:
        raise QueryError("no SQL statement; expected one, such as SELECT count(*) FROM texts")
    columns = _distinct([column[0] for column in result.description])
    return QueryResult(columns, _rows(result, watch))


def count_groups(run: Run, shards: Sequence[SnapshotShard], table: str, sql: str) -> Counter[str]:
    """Add up what a question over one of the tables counts, which gives names and numbers.

    It is asked of some shards at a time: Arrow keeps 20 kB of each file that it has open. Raises
    SchemaError, DamagedFile.
    """
    total: Counter[str] = Counter()
    waiting = iter(shards)
    while some := list(islice(waiting, _SHARDS_AT_A_TIME)):
        with connect(run, some, [table]) as connection:
            total.update(dict(connection.execute(sql).fetchall()))
    return total


def data_set(run: Run, shards: Sequence[SnapshotShard], table: str) -> pa.dataset.Dataset:
    """Return one of the tables of the shards as an Arrow data set, and no row of others.

    Raises SchemaError, DamagedFile.
    """
    schema, store = ALL_SCHEMAS[table], run.store
    names = [file.name for file in table_files(shards, table)]
    if not names:
        return pyarrow.dataset.dataset(schema.empty_table())
    with ThreadPoolExecutor(_READERS) as pool:
        # a data set would read a missing column as nulls
        for found, name in zip(pool.map(partial(_read_schema, store), names), names, strict=True):
            check_schema(found, schema, store.url(name))
    paths = [store.path(name) for name in names]
    # Arrow's own where it can be: its threads then need not wait for Python's lock
    files = pyarrow.fs.LocalFileSystem() if store.is_local else store.fs
    # without it, half of all changed bytes would pass for data
    checked = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=checked)
    whole = pyarrow.dataset.dataset(paths, schema=schema, filesystem=files, format=form)
    if table == "decisions" and _count_rows(shards, table) > _count_rows(shards, "texts"):
        # other shards share the files: `shards.run.data`
        return whole.filter(pc.field("shard").isin([shard.shard for shard in shards]))
    return whole


def _count_rows(shards: Sequence[SnapshotShard], table: str) -> int:
    return sum(file.rows for file in table_files(shards, table))


def _read_schema(store: Store, name: str) -> pa.Schema:
    where = store.url(name)
    try:
        with store.open(name) as source, open_parquet(source, where) as file:
            return file.schema_arrow
    except FileNotFoundError as error:
        raise DamagedFile(where, "a Parquet file", "none: it is gone") from error


def _rows(result: "duckdb.DuckDBPyConnection", watch: QueryWatch) -> Iterator[tuple[Any, ...]]:
    while True:
        with _as_query_errors(), watch.work():
            rows = result.fetchmany(_ROWS)
        if not rows:
            return
        yield from rows


@contextmanager
def _as_query_errors(sql: str = "") -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.PermissionException as error:
        raise QueryError(f"{_NO_FILES} ({str(error).splitlines()[0]})") from error
    except duckdb.CatalogException as error:
        is_file = (name := _MISSING.search(str(error))) and f"'{name[1]}'" in sql
        raise QueryError(f"{_NO_FILES}: {error}" if is_file else str(error)) from error
    except duckdb.Error as error:
        raise QueryError(str(error)) from error


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Number the columns that share a name, as DuckDB does in a subquery: a, a_1."""
    distinct: dict[str, None] = {}
    numbers: dict[str, int] = {}  # the last that each name was given
    for name in names:
        free = name
        while free in distinct:
            numbers[name] = numbers.get(name, 0) + 1
            free = f"{name}_{numbers[name]}"
        distinct[free] = None
    return tuple(distinct)
