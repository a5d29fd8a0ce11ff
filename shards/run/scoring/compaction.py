"""What judging reads of very many small shards, once more, in one file beside their snapshot.

To open 200,000 small tables takes a minute; what judging reads of them is a few megabytes. The
tables stay the record of truth: the file names those it is made of by their hashes, and counts for
no others.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import DamagedFile
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard
from shards.schema import (
    DECISIONS,
    TEXTS,
    SchemaError,
    as_damage,
    check_schema,
    open_parquet,
    versioned_schema,
)

LEAST = 100  # shards; fewer are as soon opened
MOST_TEXTS = 1_000  # of a shard, in the mean: to open a larger one costs little beside reading it
SCORES = ("itm", "itm_logit", "itc")
_PLACE = ("index", "text_no", "origin")
_DIGEST = b"files_sha256"
_FIELDS = [*(TEXTS.field(name) for name in (*_PLACE, *SCORES)), DECISIONS.field("reason")]
_SCHEMA = versioned_schema([(field.name, field.type, field.nullable) for field in _FIELDS])
COLUMNS = tuple(_SCHEMA.names)
_ROWS = 100_000  # of a row group
_AT_A_TIME = 1_000  # shards
_LOCAL_THREADS, _THREADS = 4, 16  # an object store answers many at once
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Compaction:
    """Columns of the texts of shards, and the run's own decisions on them, in their order.

    `first_row` is where each shard begins.
    """

    run: Run
    name: str
    first_row: Mapping[str, int]

    def read(self, shards: Sequence[SnapshotShard], columns: Sequence[str]) -> pa.Table:
        """Read the rows of shards that follow each other; raises DamagedFile."""
        first, rows = self.first_row[shards[0].shard], _count_rows(shards)
        groups = range(first // _ROWS, -(-(first + rows) // _ROWS))
        with _opened(self.run, self.name) as file:
            read = file.read_row_groups(groups, list(columns), use_threads=False)
        return read.slice(first - groups.start * _ROWS, rows)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read all rows, some at a time; raises DamagedFile."""
        with _opened(self.run, self.name) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, list(columns), use_threads=False)


def compaction_name(snapshot: str) -> str:
    """Name the file beside a snapshot's."""
    return f"snapshots/{snapshot}.facts.pq"


def open_compaction(
    run: Run, shards: Sequence[SnapshotShard], snapshot: str | None
) -> Compaction | None:
    """Find the compaction of just these shards; None where there is none, or it is damaged.

    What is damaged in its rows is told by DamagedFile as they are read.
    """
    if snapshot is None or not is_worth_it(shards):
        return None
    try:
        return parse_compaction(run, shards, snapshot)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        _log.warning("a compaction is left out, tables are read themselves: %s", error)
        return None


def parse_compaction(run: Run, shards: Sequence[SnapshotShard], snapshot: str) -> Compaction | None:
    """Read what a compaction is of, and return it if that is just these shards.

    Raises FileNotFoundError, and DamagedFile, also for one of another form: of a newer version, or
    changed where no checksum tells.
    """
    name = compaction_name(snapshot)
    if not run.store.exists(name):
        raise FileNotFoundError(name)
    with _opened(run, name) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    try:
        check_schema(schema, _SCHEMA, run.store.url(name))
    except SchemaError as error:
        raise DamagedFile(run.store.url(name), "the columns of a compaction", error) from error
    if (schema.metadata or {}).get(_DIGEST) != files_sha256(shards).encode():
        return None
    if rows != (expected := _count_rows(shards)):
        raise DamagedFile(run.store.url(name), f"{expected} rows", rows)
    ends = accumulate(shard.file("texts").rows for shard in shards)
    first_row = dict(zip((shard.shard for shard in shards), chain([0], ends), strict=False))
    return Compaction(run, name, first_row)


def keep_compaction(run: Run, shards: Sequence[SnapshotShard], snapshot: str) -> None:
    """Write the compaction of a snapshot of very many small shards, unless it is there.

    Raises DamagedFile, SchemaError.
    """
    if not is_worth_it(shards) or open_compaction(run, shards, snapshot) is not None:
        return
    with run.store.staging() as folder:
        path = folder / f"{snapshot}.pq"
        _write(run, shards, path)
        run.store.publish(path, compaction_name(snapshot))


def is_worth_it(shards: Sequence[SnapshotShard]) -> bool:
    """Check that there are many shards, and that they are small."""
    return len(shards) >= LEAST and _count_rows(shards) <= MOST_TEXTS * len(shards)


def files_sha256(shards: Sequence[SnapshotShard]) -> str:
    """Hash the hashes of the tables that a compaction of these shards is made of."""
    digest = hashlib.sha256()
    for shard in shards:
        for table in ("texts", "decisions"):
            digest.update(shard.file(table).sha256.encode())
    return digest.hexdigest()


def read_facts(
    run: Run, shards: Sequence[SnapshotShard]
) -> Iterator[tuple[list[SnapshotShard], pa.Table]]:
    """Read from the tables what a compaction holds, some shards at a time, with these.

    Raises DamagedFile, SchemaError.
    """
    waiting = iter(shards)
    with ThreadPoolExecutor(_LOCAL_THREADS if run.store.is_local else _THREADS) as pool:
        while some := list(islice(waiting, _AT_A_TIME)):
            facts = pa.concat_tables(pool.map(partial(_facts_of, run), some)).combine_chunks()
            yield some, facts.select(_SCHEMA.names).cast(_SCHEMA)


def _count_rows(shards: Sequence[SnapshotShard]) -> int:
    return sum(shard.file("texts").rows for shard in shards)


def _facts_of(run: Run, shard: SnapshotShard) -> pa.Table:
    texts = read_data(run, shard.file("texts"), [*_PLACE, *SCORES])
    decisions = read_data(run, shard.file("decisions"), ["reason"])
    if len(texts) != len(decisions):
        where = run.store.url(shard.file("decisions").name)
        raise DamagedFile(where, f"{len(texts)} decisions, one for each text", len(decisions))
    return texts.append_column("reason", decisions["reason"])


def _write(run: Run, shards: Sequence[SnapshotShard], path: Path) -> None:
    schema = _SCHEMA.with_metadata({**_SCHEMA.metadata, _DIGEST: files_sha256(shards)})
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        waiting = _SCHEMA.empty_table()
        for _, facts in read_facts(run, shards):
            waiting = pa.concat_tables([waiting, facts])
            full = len(waiting) - len(waiting) % _ROWS
            if full:  # each row group but the last has all of its rows, so that a row can be found
                writer.write_table(waiting.slice(0, full), _ROWS)
                waiting = waiting.slice(full).combine_chunks()
        writer.write_table(waiting, _ROWS)


@contextmanager
def _opened(run: Run, name: str) -> Iterator[pq.ParquetFile]:
    where = run.store.url(name)
    if run.store.is_local:
        with open_parquet(run.store.path(name), where) as file:
            yield file
        return
    with (
        as_damage(where),  # it may be gone by now
        run.store.open(name) as source,
        open_parquet(cast("pa.NativeFile", source), where) as file,
    ):
        yield file
