"""What judging reads of very many small shards, once more, in one file beside their snapshot.

To open 200,000 small tables takes a minute; what judging reads of them is a few megabytes. The
tables stay the record of truth: the file names those it is made of by their hashes, and counts for
no others.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
_DIGEST, _SUMS = b"files_sha256", b"columns_sha256"
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

    `first_row` is where each shard begins; `sums` are the hashes of each row group's columns.
    """

    run: Run
    name: str
    first_row: Mapping[str, int]
    sums: Sequence[Mapping[str, str]]

    def read(self, shards: Sequence[SnapshotShard], columns: Sequence[str]) -> pa.Table:
        """Read the rows of shards that follow each other; raises DamagedFile."""
        first, rows = self.first_row[shards[0].shard], _count_rows(shards)
        groups = range(first // _ROWS, -(-(first + rows) // _ROWS))
        with _opened(self.run, self.name) as file:
            read = [_SCHEMA.empty_table().select(columns)]
            read += [self._read_group(file, group, columns) for group in groups]
        return pa.concat_tables(read).slice(first - groups.start * _ROWS, rows)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read all rows, some at a time; raises DamagedFile."""
        with _opened(self.run, self.name) as file:
            for group in range(file.num_row_groups):
                yield self._read_group(file, group, columns)

    def _read_group(self, file: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table:
        rows = file.read_row_group(group, list(columns), use_threads=False)
        if any(self.sums[group].get(column) != _sum_of(rows[column]) for column in columns):
            raise DamagedFile(self.run.store.url(self.name), "the rows that were written", "others")
        return rows.cast(pa.schema([_SCHEMA.field(column) for column in columns]))


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
        schema, rows, groups = file.schema_arrow, file.metadata.num_rows, file.num_row_groups
        noted = (file.metadata.metadata or {}).get(_SUMS)
    try:
        check_schema(schema, _SCHEMA, run.store.url(name))
    except SchemaError as error:
        raise DamagedFile(run.store.url(name), "the columns of a compaction", error) from error
    if (schema.metadata or {}).get(_DIGEST) != files_sha256(shards).encode() or noted is None:
        return None
    if rows != (expected := _count_rows(shards)):
        raise DamagedFile(run.store.url(name), f"{expected} rows", rows)
    if len(sums := _parse_sums(noted, run.store.url(name))) != groups:
        raise DamagedFile(run.store.url(name), f"hashes of {groups} row groups", len(sums))
    ends = accumulate(shard.file("texts").rows for shard in shards)
    first_row = dict(zip((shard.shard for shard in shards), chain([0], ends), strict=False))
    return Compaction(run, name, first_row, sums)


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
        waiting, sums = _SCHEMA.empty_table(), list[dict[str, str]]()

        def write(rows: pa.Table) -> None:
            sums.append({name: _sum_of(rows[name]) for name in COLUMNS})
            writer.write_table(rows, _ROWS)

        for _, facts in read_facts(run, shards):
            waiting = pa.concat_tables([waiting, facts])
            full = len(waiting) - len(waiting) % _ROWS
            for first in range(0, full, _ROWS):  # each but the last is full: a row can be found
                write(waiting.slice(first, _ROWS))
            waiting = waiting.slice(full).combine_chunks()
        if len(waiting):
            write(waiting)
        writer.add_key_value_metadata({_SUMS: json.dumps(sums)})


def _sum_of(column: pa.ChunkedArray) -> str:
    """Hash the values of a column: Parquet's checksums leave out the headers of pages."""
    values, digest = column.combine_chunks(), hashlib.sha256()
    if pa.types.is_string(values.type):
        coded = values.dictionary_encode()
        digest.update(json.dumps(coded.dictionary.to_pylist()).encode())
        values = coded.indices
    digest.update(np.packbits(pc.is_null(values).to_numpy(zero_copy_only=False)).tobytes())
    digest.update(values.fill_null(0).to_numpy().tobytes())
    return digest.hexdigest()


def _parse_sums(noted: bytes, where: str) -> list[dict[str, str]]:
    try:
        return [dict(group) for group in json.loads(noted)]
    except (ValueError, TypeError) as error:
        raise DamagedFile(where, "hashes of its columns", error) from error


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
