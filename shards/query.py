"""SQL over a run: DuckDB with the tables samples, texts and decisions, read where they lie."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from shards.run import Run
from shards.schema import SCHEMAS, check_schema
from shards.snapshot import SnapshotShard

if TYPE_CHECKING:
    import duckdb


def connect(
    run: Run, shards: Sequence[SnapshotShard], tables: Iterable[str] = tuple(SCHEMAS)
) -> "duckdb.DuckDBPyConnection":
    """Open a database with the tables (`samples`, `texts`, `decisions`) of the shards.

    They are read through Arrow data sets: from any fsspec store, whatever signs the names hold.
    Nothing else can be read or written through the connection. Raises SchemaError.
    """
    import duckdb  # a tenth of a second, and not every user of this room asks questions

    connection = duckdb.connect()
    for table in tables:
        connection.register(table, data_set(run, shards, table))
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    return connection


def data_set(run: Run, shards: Sequence[SnapshotShard], table: str) -> pa.dataset.Dataset:
    """Give one of the three tables of the shards as an Arrow data set; raises SchemaError."""
    schema, store = SCHEMAS[table], run.store
    names = [file.name for shard in shards for file in shard.files if file.table == table]
    if not names:
        return pyarrow.dataset.dataset(schema.empty_table())
    for name in names:  # a data set would read a missing column as nulls
        with store.open(name) as file:
            check_schema(pq.read_schema(file), schema, store.url(name))
    paths = [store.path(name) for name in names]
    return pyarrow.dataset.dataset(paths, schema=schema, filesystem=store.fs, format="parquet")
