"""Snapshots: fixed, named lists of what was committed. All that reads a run's data reads one.

A snapshot is named by the hash of its content, without attempt ids, file names and times: two runs
that made the same data have snapshots of the same name.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import UsageError
from shards.inputs.reader import ShardState
from shards.run.attempt import read_quarantined
from shards.run.commit import Commit, Counts, FileRecord, read_commits
from shards.run.run import Run, canonical_json
from shards.schema import VERSION_KEY, check_version, read_bytes, versioned_schema

_FILE = pa.struct(
    [
        pa.field("table", pa.string()),
        pa.field("name", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("rows", pa.int64()),
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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A fixed list of committed shards, in the order of the input list."""

    id: str
    shards: tuple[SnapshotShard, ...]


def table_files(shards: Iterable[SnapshotShard], table: str) -> list[FileRecord]:
    """Return the files of one table (`clean` too), in the order of the shards."""
    return [file for shard in shards for file in shard.files if file.table == table]


def write_snapshot(run: Run, allow_partial: bool = False) -> Snapshot:
    """List all that is committed, make it the newest snapshot, and write `clean.txt`.

    Raises SnapshotError while shards are pending, unless `allow_partial`.
    """
    commits = read_commits(run)
    done = commits.keys() | read_quarantined(run).keys()
    pending = [shard for shard in run.shards if shard not in done]
    if not commits or (pending and not allow_partial):
        raise SnapshotError(
            f"{run.store.url()}: {len(pending)} of {len(run.shards)} shards are not committed "
            f"(the first: {pending[0]}); finish the run, or allow a partial snapshot"
        )
    shards = tuple(as_snapshot_shard(done) for done in commits.values())
    snapshot = Snapshot(snapshot_id(shards), shards)
    run.store.create(_name(snapshot.id), to_parquet(shards))
    newest = {
        "id": snapshot.id,
        "name": _name(snapshot.id),
        "shards": len(shards),
        "partial": len(commits) < len(run.shards),
        "written": datetime.now(UTC).isoformat(),
    }
    run.store.put("snapshot.json", json.dumps(newest, indent=2).encode())
    write_clean_list(run, "clean.txt", shards)
    return snapshot


def write_clean_list(run: Run, name: str, shards: Iterable[SnapshotShard]) -> None:
    """Write a list of clean tars, such as `clean.txt`: their absolute URLs, one a line."""
    urls = [run.store.url(file.name) + "\n" for file in table_files(shards, "clean")]
    run.store.put(name, "".join(urls).encode())


def newest_snapshot_id(run: Run) -> str | None:
    """Return the id of the newest snapshot, or None if none was written."""
    try:
        return str(json.loads(run.store.read("snapshot.json"))["id"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(run, "snapshot.json", error) from error


def open_snapshot(run: Run, id: str | None = None) -> Snapshot:
    """Read a snapshot (default: the newest); raises SnapshotError if it is not there."""
    wanted = id if id is not None else newest_snapshot_id(run)
    if wanted is None:
        raise SnapshotError(f"{run.store.url()} has no snapshot yet; finish the run first")
    try:
        return Snapshot(
            wanted, from_parquet(run.store.read(_name(wanted)), run.store.url(_name(wanted)))
        )
    except FileNotFoundError as error:
        raise SnapshotError(f"{run.store.url()} has no snapshot {wanted}") from error
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(run, _name(wanted), error) from error


def to_parquet(shards: Sequence[SnapshotShard]) -> bytes:
    """Write a list of shards as the Parquet file that a snapshot is, and a view has."""
    buffer = io.BytesIO()
    table = pa.Table.from_pylist([_row(shard) for shard in shards], schema=_SNAPSHOT)
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def from_parquet(data: bytes, where: str) -> tuple[SnapshotShard, ...]:
    """Read such a file; raises SchemaError for a newer version, and what Arrow raises."""
    table = read_bytes(data)
    check_version(int((table.schema.metadata or {}).get(VERSION_KEY, b"0")), where)
    return tuple(_from_row(row) for row in table.to_pylist())


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
        digest.update(canonical_json(row) + b"\n")
    return digest.hexdigest()[:32]


def _name(snapshot: str) -> str:
    return f"snapshots/{snapshot}.parquet"


def _unreadable(run: Run, name: str, error: Exception) -> SnapshotError:
    return SnapshotError(
        f"{run.store.url(name)} cannot be read ({error}); delete it, and write the snapshot again "
        "from the commits"
    )


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


def _from_row(row: dict[str, Any]) -> SnapshotShard:
    return SnapshotShard(
        shard=row["shard"],
        attempt=row["attempt"],
        state=ShardState(state=row["state"], offset=row["offset"], detail=row["detail"]),
        counts=Counts.model_validate_json(row["counts"]),
        files=tuple(FileRecord(**file) for file in row["files"]),
    )
