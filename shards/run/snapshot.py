"""Snapshots: fixed, named lists of what was committed. All that reads a run's data reads one.

A snapshot is named by the hash of its content (rows, texts, decisions, clean samples), without the
models' numbers, attempt ids, file names and times: two runs that made the same data have snapshots
of the same name, whatever their batches were.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from shards.errors import DamagedFile, UsageError
from shards.inputs.reader import ShardState
from shards.run.attempt import read_quarantined
from shards.run.commit import Commit, Counts, FileRecord
from shards.run.many import without_collection
from shards.run.record import canonical_json, read_record, write_record
from shards.run.run import Run
from shards.run.segment import Committed, read_committed
from shards.schema import (
    SCHEMAS,
    VERSION_KEY,
    as_damage,
    check_version,
    read_bytes,
    versioned_schema,
)

_FILE = pa.struct(
    [
        pa.field("table", pa.string()),
        pa.field("name", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("content_sha256", pa.string()),
    ]
)
_SNAPSHOT = versioned_schema(
    [
        ("shard", pa.string(), False),
        ("attempt", pa.string(), False),
        ("state", pa.string(), False),
        ("offset", pa.int64(), True),
        ("detail", pa.string(), True),
        ("samples_in", pa.int64(), False),
        ("kept", pa.int64(), False),
        ("filtered", pa.int64(), False),
        ("rejected", pa.int64(), False),
        ("counts", pa.string(), False),
        ("files", pa.list_(_FILE), False),
    ]
)
_FILES = TypeAdapter(tuple[FileRecord, ...])


class SnapshotError(UsageError):
    """A snapshot that cannot be written yet, or is not there."""


@dataclass(frozen=True, slots=True)
class SnapshotShard:
    """One committed shard: how its input ended, what became of its samples, and its files."""

    shard: str
    attempt: str
    state: ShardState
    counts: Counts
    files: tuple[FileRecord, ...]

    def file(self, table: str) -> FileRecord:
        """Return the file of one of the three tables, which each shard has."""
        return next(file for file in self.files if file.table == table)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A fixed list of committed shards, in the order of the input list."""

    id: str
    shards: tuple[SnapshotShard, ...]


def table_files(shards: Iterable[SnapshotShard], table: str) -> list[FileRecord]:
    """Return the files of one table (`clean` too), each once, in the order of the shards."""
    files = (file for shard in shards for file in shard.files if file.table == table)
    return list({file.name: file for file in files}.values())


def write_snapshot(
    run: Run, allow_partial: bool = False, committed: Committed | None = None
) -> Snapshot:
    """List all that is committed, make it the newest snapshot, and write `clean.txt`.

    `committed` is that, where it was read already. Raises SnapshotError while shards are pending,
    unless `allow_partial`.
    """
    commits = (committed or read_committed(run)).commits
    done = commits.keys() | read_quarantined(run).keys()
    pending = [shard for shard in run.shards if shard not in done]
    if not commits or (pending and not allow_partial):
        raise SnapshotError(
            f"{run.store.url()}: {len(pending)} of {len(run.shards)} shards are not committed "
            f"(the first: {pending[0]}); finish the run, or allow a partial snapshot"
        )
    shards = tuple(as_snapshot_shard(done) for done in commits.values())
    snapshot = Snapshot(snapshot_id(shards), shards)
    _put_list(run, snapshot)
    newest = {
        "id": snapshot.id,
        "name": _name(snapshot.id),
        "shards": len(shards),
        "partial": len(commits) < len(run.shards),
        "written": datetime.now(UTC).isoformat(),
    }
    run.store.put("snapshot.json", write_record(newest))
    write_clean_list(run, "clean.txt", shards)
    return snapshot


def _put_list(run: Run, snapshot: Snapshot) -> None:
    """Write a snapshot's list, over one that is torn or names files of commits that are no more.

    A shard whose commit was mended has other files with the same content: the id is as before.
    """
    name, data = _name(snapshot.id), to_parquet(snapshot.shards)
    if run.store.create(name, data) or run.store.read(name) == data:
        return
    try:
        listed = open_snapshot(run, snapshot.id)
    except (DamagedFile, SnapshotError):
        listed = None
    if listed != snapshot:
        run.store.put(name, data)


def write_clean_list(run: Run, name: str, shards: Iterable[SnapshotShard]) -> None:
    """Write a list of clean tars, such as `clean.txt`: their absolute URLs, one a line."""
    urls = [run.store.url(file.name) + "\n" for file in table_files(shards, "clean")]
    run.store.put(name, "".join(urls).encode())


def newest_snapshot_id(run: Run) -> str | None:
    """Return the id of the newest snapshot, or None if none was written; raises DamagedFile."""
    record = read_newest(run)
    return None if record is None else str(record["id"])


def read_newest(run: Run) -> dict[str, Any] | None:
    """Read `snapshot.json`, which has an `id`; None if it is not there. Raises DamagedFile."""
    where = run.store.url("snapshot.json")
    try:
        record = read_record(run.store.read("snapshot.json"), where)
    except FileNotFoundError:
        return None
    if not is_snapshot_id(record.get("id")):
        raise DamagedFile(where, "32 hex digits as id", repr(record.get("id")))
    return record


def open_snapshot(run: Run, id: str | None = None) -> Snapshot:
    """Read a snapshot (default: the newest).

    Raises SnapshotError if it is not there, DamagedFile, SchemaError.
    """
    wanted = id if id is not None else newest_snapshot_id(run)
    if wanted is None:
        raise SnapshotError(f"{run.store.url()} has no snapshot yet; finish the run first")
    try:
        if not is_snapshot_id(wanted):
            raise FileNotFoundError(wanted)
        data = run.store.read(_name(wanted))
    except FileNotFoundError as error:
        raise SnapshotError(f"{run.store.url()} has no snapshot {wanted}") from error
    return Snapshot(wanted, from_parquet(data, run.store.url(_name(wanted))))


@without_collection()
def to_parquet(shards: Sequence[SnapshotShard]) -> bytes:
    """Write a list of shards as the Parquet file that a snapshot is, and a view has."""
    buffer = io.BytesIO()
    table = pa.Table.from_pylist([_row(shard) for shard in shards], schema=_SNAPSHOT)
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


@without_collection()
def from_parquet(data: bytes, where: str) -> tuple[SnapshotShard, ...]:
    """Read such a file; raises SchemaError for a newer version, and DamagedFile."""
    table = read_bytes(data, where)
    version = (table.schema.metadata or {}).get(VERSION_KEY, b"0")
    if not version.isdigit():
        raise DamagedFile(where, "a number as schema version", version)
    check_version(int(version), where)
    try:
        with as_damage(where):
            rows = _rows_of(table)
        return tuple(_from_row(row) for row in rows)
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedFile(where, "a list of committed shards", error) from error


def as_snapshot_shard(done: Commit) -> SnapshotShard:
    """Return a commit's part in a snapshot."""
    return SnapshotShard(done.shard, done.attempt, done.state, done.counts, done.files)


def snapshot_id(shards: Iterable[SnapshotShard]) -> str:
    """Hash the shards by content, whoever made them and when: 32 hex digits."""
    digest = hashlib.sha256()
    for shard in shards:
        row = _row(shard)
        del row["attempt"]
        for file in row["files"]:
            del file["name"]
            content = file.pop("content_sha256")
            if content is not None:
                del file["size_bytes"]
                file["sha256"] = content
        digest.update(canonical_json(row) + b"\n")
    return digest.hexdigest()[:32]


def is_snapshot_id(id: object) -> bool:
    """Check for the form of a snapshot's id: 32 hex digits."""
    return isinstance(id, str) and re.fullmatch("[0-9a-f]{32}", id) is not None


def _name(snapshot: str) -> str:
    return f"snapshots/{snapshot}.parquet"


def _row(shard: SnapshotShard) -> dict[str, Any]:
    return {
        "shard": shard.shard,
        "attempt": shard.attempt,
        **shard.state.model_dump(mode="json"),
        "samples_in": shard.counts.samples_in,
        "kept": shard.counts.kept,
        "filtered": shard.counts.filtered,
        "rejected": shard.counts.rejected,
        "counts": canonical_json(shard.counts.model_dump()).decode(),
        "files": [file.model_dump() for file in shard.files],
    }


def _rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows, with the files of each; column by column, which is many times as fast."""
    names = [name for name in table.column_names if name != "files"]
    columns = [table[name].to_pylist() for name in names]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    lists = table["files"].combine_chunks()
    files = lists.flatten()
    parts = [files.field(number).to_pylist() for number in range(files.type.num_fields)]
    fields = [files.type.field(number).name for number in range(files.type.num_fields)]
    records = (dict(zip(fields, values, strict=True)) for values in zip(*parts, strict=True))
    for row, count in zip(rows, lists.value_lengths().to_pylist(), strict=True):
        row["files"] = list(islice(records, count or 0))
    return rows


def _from_row(row: dict[str, Any]) -> SnapshotShard:
    missing = SCHEMAS.keys() - {file["table"] for file in row["files"]}
    if missing:
        raise ValueError(f"shard {row['shard']} without the tables {sorted(missing)}")
    return SnapshotShard(
        shard=row["shard"],
        attempt=row["attempt"],
        state=ShardState(state=row["state"], offset=row["offset"], detail=row["detail"]),
        counts=Counts.model_validate_json(row["counts"]),
        files=_FILES.validate_python(row["files"]),
    )
