"""Whether a run that was struck came to what an unbroken one comes to; nothing of it is trusted.

Commits and tables are read as plain JSON and Parquet, not by the product's own readers.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.store import Store

KEYS = {
    "samples": ("shard", "index"),
    "texts": ("shard", "index", "text_no"),
    "decisions": ("shard", "index", "text_no"),
}
CLOSE = 1e-5  # two scores of one text, however it was batched
Row = dict[str, Any]
Tables = dict[str, list[Row]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Rows that are missing, rows that are there more than once or not at all elsewhere."""

    lost: int
    doubled: int
    differing: tuple[str, ...]  # tables whose rows are all there, but say something else


def read_tables(url: str) -> Tables:
    """Read what the commits of a run name, in order."""
    store = Store(url)
    names = [name for name in store.list("commits") if name.endswith(".json")]
    commits = [json.loads(data) for data in store.read_many(names).values()]
    return {name: list(_rows(store, commits, name)) for name in KEYS}


def compare(ours: Tables, unbroken: Tables) -> Verdict:
    """Set the tables of a run beside those of the unbroken one."""
    lost = doubled = 0
    differing = []
    for name, key in KEYS.items():
        places = [tuple(row[part] for part in key) for row in ours[name]]
        expected = {tuple(row[part] for part in key) for row in unbroken[name]}
        lost += len(expected - set(places))
        doubled += len(places) - len(set(places) & expected)
        if set(places) == expected and not _same(ours[name], unbroken[name]):
            differing.append(name)
    return Verdict(lost, doubled, tuple(differing))


def _rows(store: Store, commits: list[dict[str, Any]], table: str) -> Iterator[Row]:
    files = [file["name"] for done in commits for file in done["files"] if file["table"] == table]
    parts = [pq.read_table(io.BytesIO(data)) for data in store.read_many(files).values()]
    if parts:
        whole = pa.concat_tables(parts)
        yield from whole.sort_by([(part, "ascending") for part in KEYS[table]]).to_pylist()


def _same(ours: list[Row], theirs: list[Row]) -> bool:
    return len(ours) == len(theirs) and all(
        row.keys() == other.keys() and all(_close(row[name], other[name]) for name in row)
        for row, other in zip(ours, theirs, strict=True)
    )


def _close(value: object, other: object) -> bool:
    if isinstance(value, float) and isinstance(other, float):
        return abs(value - other) <= CLOSE
    return value == other
