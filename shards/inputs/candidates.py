"""Texts from outside: candidates that a Parquet file has for the pictures of a cleaning.

A sample is named by `shard` and `key`, or by `key` alone; `author` is the origin of a text. A run
keeps them, sorted by key, so that workers anywhere find those of a sample.
"""

import hashlib
import io
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.errors import DamagedFile, UsageError
from shards.schema import as_damage, open_parquet
from shards.store import Store

NAME = "candidates.parquet"  # in a run's folder
DEFAULT_ORIGIN = "imported"
_ROWS_AT_A_TIME = 10_000
_COLUMNS = ("shard", "key", "origin", "text")
_SCHEMA = pa.schema([(name, pa.string()) for name in _COLUMNS])
_ORIGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class CandidatesError(UsageError):
    """A file of candidates that cannot be used."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Texts for samples, sorted by key, in the order of the file for each."""

    table: pa.Table

    def of(self, shard: str, key: str) -> Iterator[tuple[str, str]]:
        """Yield the origin and the text of each candidate of a sample."""
        keys, count = self.table["key"], len(self.table)
        row = bisect_left(range(count), key, key=lambda number: keys[number].as_py())
        while row < count and keys[row].as_py() == key:
            found = {name: self.table[name][row].as_py() for name in _COLUMNS}
            if found["shard"] in (None, shard):
                yield found["origin"], found["text"]
            row += 1

    def with_shards(self, drawn_from: Mapping[str, str]) -> "Candidates":
        """Name other shards instead, each with the texts of the one it is drawn from."""
        of_any = self.table.filter(pc.is_null(self.table["shard"]))
        parts = [of_any]
        for shard, source in drawn_from.items():
            mine = self.table.filter(pc.equal(self.table["shard"], source))
            named = pa.array([shard] * len(mine), pa.string())
            parts.append(mine.set_column(0, _SCHEMA.field("shard"), named))
        return Candidates(_by_key(pa.concat_tables(parts)))

    @property
    def rows(self) -> dict[str, int]:
        """Count the texts of each origin."""
        counts = self.table["origin"].value_counts().to_pylist()
        return {each["values"]: each["counts"] for each in sorted(counts, key=str)}

    @property
    def identity(self) -> dict[str, object]:
        """Return what decides the output: the digest of all rows, and their numbers."""
        digest = hashlib.sha256()
        for batch in self.table.to_batches(_ROWS_AT_A_TIME):
            for row in batch.to_pylist():
                digest.update(repr(tuple(row.values())).encode("utf-8", "surrogatepass"))
        return {"sha256": digest.hexdigest(), "rows": self.rows}

    def to_parquet(self) -> bytes:
        """Write them for the run's folder."""
        buffer = io.BytesIO()
        pq.write_table(self.table, buffer, compression="zstd")
        return buffer.getvalue()


def read_candidates(url: str, most_bytes: int) -> tuple[Candidates, int]:
    """Read a file of candidates; texts of more than `most_bytes` or of none are left out, counted.

    Raises CandidatesError for a file without the columns.
    """
    folder, _, name = url.rpartition("/")
    store = Store(folder or ("/" if url.startswith("/") else "."))
    where = store.url(name)
    try:
        with store.open(name) as file, open_parquet(file, where) as opened:
            given = opened.read()
    except FileNotFoundError:
        raise CandidatesError(f"there are no candidates at {where}") from None
    except DamagedFile as error:
        raise CandidatesError(f"{where} cannot be read: {error}") from None
    table = pa.table([_column(given, name, where) for name in _COLUMNS], schema=_SCHEMA)
    _check_origins(table["origin"].unique().to_pylist(), where)
    length = pc.binary_length(pc.utf8_trim_whitespace(table["text"]))
    fits = pc.and_(pc.greater(length, 0), pc.less_equal(length, most_bytes))
    kept = table.filter(pc.and_(pc.is_valid(table["key"]), fits))
    return Candidates(_by_key(kept)), len(table) - len(kept)


def open_candidates(store: Store, identity: Mapping[str, object]) -> Candidates | None:
    """Read what a run keeps; None for a run without. Raises DamagedFile."""
    if "candidates" not in identity:
        return None
    where = store.url(NAME)
    try:
        data = store.read(NAME)
    except FileNotFoundError as error:
        raise DamagedFile(where, "the candidates of the run", "none: it is gone") from error
    with as_damage(where):
        kept = Candidates(pq.read_table(io.BytesIO(data)).cast(_SCHEMA).combine_chunks())
    if kept.rows != cast(dict[str, object], identity["candidates"])["rows"]:
        raise DamagedFile(where, "the candidates that the run began with", f"{kept.rows}")
    return kept


def _by_key(table: pa.Table) -> pa.Table:
    """Sort texts by key; those of one stay in their order."""
    order = pa.table({"key": table["key"], "row": pa.array(range(len(table)))})
    rows = pc.sort_indices(order, [("key", "ascending"), ("row", "ascending")])
    return table.take(rows).combine_chunks()


def _column(table: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    """Take a column of texts; `origin` is the file's `author`."""
    theirs = "author" if name == "origin" else name
    if theirs in table.column_names:
        column = table[theirs]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise CandidatesError(f"{where}: column {theirs} is {column.type}; expected strings")
        column = column.cast(pa.string())
    elif name in ("key", "text"):
        raise CandidatesError(
            f"{where} has no column {theirs}; expected key and text, and maybe shard and author; "
            f"found {', '.join(table.column_names) or 'none'}"
        )
    else:
        column = pa.chunked_array([pa.nulls(len(table), pa.string())])
    return pc.fill_null(column, DEFAULT_ORIGIN) if name == "origin" else column


def _check_origins(origins: Sequence[str], where: str) -> None:
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise CandidatesError(
                f"{where}: author {origin[:80]!r} cannot name an origin: expected 1 to 64 of the "
                "characters A-Z a-z 0-9 _ . -"
            )
