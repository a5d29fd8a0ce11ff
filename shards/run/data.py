"""The tables of a run's data files, read whole; damage to one is one error that names it."""

import pyarrow as pa

from shards.errors import DamagedFile
from shards.run.commit import FileRecord
from shards.run.run import Run
from shards.schema import read_table


def read_data(run: Run, file: FileRecord, columns: list[str] | None = None) -> pa.Table:
    """Read a table's file, checked; raises DamagedFile, also if it is gone, and SchemaError."""
    where = run.store.url(file.name)
    if run.store.is_local:  # Arrow's own files need no turn of Python's lock for each small read
        return read_table(run.store.path(file.name), file.table, where, columns)
    try:
        with run.store.open(file.name) as opened:
            return read_table(opened, file.table, where, columns)
    except FileNotFoundError as error:
        raise DamagedFile(where, "a Parquet file", "none: it is gone") from error
