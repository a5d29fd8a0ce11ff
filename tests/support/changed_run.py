"""Runs that are changed behind their own back, for checks to find out."""

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.run.commit import read_commit
from shards.run.run import Run
from shards.run.verify.run import verify_run

Change = Callable[[pa.Table], pa.Table]


def record_of(run: Run, name: str) -> dict[str, Any]:
    """Read a JSON file of a run as it is without its seal, for a test to change."""
    record: dict[str, Any] = json.loads(run.store.read(name))
    record.pop("seal", None)
    return record


def problems(run: Run) -> str:
    return "\n".join(str(problem) for problem in verify_run(run).problems)


def replace_file(run: Run, table: str, data: bytes, rows: int | None = None) -> None:
    """Put other bytes in place of shard 0's file, and make its commit agree with them."""
    done = read_commit(run, run.shards[0])
    assert done is not None
    files = []
    for file in done.files:
        if file.table == table:
            run.store.put(file.name, data)
            digest = hashlib.sha256(data).hexdigest()
            update = {"sha256": digest, "size_bytes": len(data)}
            file = file.model_copy(update=update | ({} if rows is None else {"rows": rows}))
        files.append(file)
    changed = done.model_copy(update={"files": tuple(files)})
    run.store.put(f"commits/{run.shards[0]}.json", changed.model_dump_json().encode())


def change_table(run: Run, table: str, change: Change) -> None:
    file = file_of(run, table)
    changed = change(pq.read_table(io.BytesIO(run.store.read(file))))
    buffer = io.BytesIO()
    pq.write_table(changed, buffer)
    replace_file(run, table, buffer.getvalue(), len(changed))


def file_of(run: Run, table: str) -> str:
    done = read_commit(run, run.shards[0])
    assert done is not None
    file = done.file(table)
    assert file is not None
    return file.name


def with_value(column: str, row: int, value: Any) -> Change:
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        rows[row][column] = value
        return pa.Table.from_pylist(rows, schema=table.schema)

    return change
