"""The tables of a run's data files, read whole; damage to one is one error that names it.

A file of a view's decisions may hold those of many small shards, so that few files are written and
opened. A shard's are the rows that name it, whoever shares the file.
"""

import pyarrow as pa

from shards.errors import DamagedFile
from shards.run.commit import FileRecord
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard
from shards.schema import read_table

_SMALL = 1 << 20  # bytes: one request, where an open file takes three


def read_shard(
    run: Run, shard: SnapshotShard, table: str, columns: list[str] | None = None
) -> pa.Table:
    """Read the rows of one shard, and of none that shares a file with it; raises as `read_data`."""
    only = shard.shard if table == "decisions" else None
    return read_data(run, shard.file(table), columns, only)


def read_data(
    run: Run, file: FileRecord, columns: list[str] | None = None, shard: str | None = None
) -> pa.Table:
    """Read a table's file, or the rows of one shard in it, checked.

    Raises DamagedFile, also if it is gone, and SchemaError.
    """
    where = run.store.url(file.name)
    if run.store.is_local:  # Arrow's own files need no turn of Python's lock for each small read
        return read_table(run.store.path(file.name), file.table, where, columns, shard)
    try:
        if file.size_bytes <= _SMALL:
            data = pa.BufferReader(run.store.read(file.name, file.size_bytes))
            return read_table(data, file.table, where, columns, shard)
        with run.store.open(file.name) as opened:
            return read_table(opened, file.table, where, columns, shard)
    except FileNotFoundError as error:
        raise DamagedFile(where, "a Parquet file", "none: it is gone") from error
