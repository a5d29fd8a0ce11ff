"""The two tables of a download: a list of addresses in parts, and what became of each row."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from shards.schema import arrow_rows, check_schema, open_parquet, versioned_schema

_ROWS_PER_GROUP = 10_000

# A part of the list. `address` is what is asked for; where there is none, `reason` says why.
LISTED = versioned_schema(
    [
        ("row", pa.int64(), False),  # in the whole list, from 0
        ("url", pa.string(), True),  # as the list has it
        ("address", pa.string(), True),
        ("reason", pa.string(), True),
        ("detail", pa.string(), True),
        ("text", pa.string(), True),
        ("sha256", pa.string(), True),  # as the list says; so is the other
        ("md5", pa.string(), True),
        ("columns", pa.string(), True),  # all others, as a JSON object
    ]
)
# What became of the rows of a part: each is here once.
ROWS = versioned_schema(
    [
        ("row", pa.int64(), False),
        ("url", pa.string(), True),
        ("text", pa.string(), True),
        ("status", pa.string(), False),  # ok or failed
        ("reason", pa.string(), True),
        ("detail", pa.string(), True),
        ("tries", pa.int16(), False),  # how often it was asked for
        ("tar", pa.string(), True),
        ("key", pa.string(), True),
        ("bytes", pa.int64(), True),
        ("sha256", pa.string(), True),
    ]
)


class TableWriter:
    """Writes rows of one of the two tables, in row groups."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema, self._waiting = schema, list[Mapping[str, Any]]()
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row."""
        self._waiting.append(row)
        if len(self._waiting) >= _ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(arrow_rows(self._waiting, self._schema))
        self._waiting = []


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write a whole table."""
    writer = TableWriter(path, schema)
    for row in rows:
        writer.add(row)
    writer.close()


def read_rows(
    source: BinaryIO, schema: pa.Schema, where: str, columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Read a table's rows, checked; `where` names it. Raises SchemaError, and DamagedFile."""
    with open_parquet(source, where) as file:
        check_schema(file.schema_arrow, schema, where)
        table = file.read(columns=list(columns or schema.names), use_threads=False)
    return list(table.to_pylist())
