"""Samples that a person has listed, found in a run: to be left out by a view."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.clean.lists import ListError, read_keys
from shards.naming import encode_name
from shards.reasons import SampleReason
from shards.run.data import read_data
from shards.run.exclusion import left_out_of, read_groups
from shards.run.run import Run
from shards.run.view import View
from shards.schema import GROUPS

LISTED = "listed"
_SHOWN = 200  # characters of a name


def find_listed(run: Run, view: View, location: str) -> tuple[pa.Table, int]:
    """Return the listed samples as a table of `GROUPS`, and how many names are of no sample.

    Keys are as in the input, or encoded as in clean shards. What the view leaves out already is not
    left out twice. Raises ListError where none is there.
    """
    wanted: dict[str, set[str]] = {}
    for row in read_keys(location).to_pylist():
        wanted.setdefault(row["shard"], set()).add(row["key"])
    rows, known = list(_rows(run, view, wanted)), set[tuple[str, str]]()
    for row in rows:
        known |= {(row["shard"], row["key"]), (row["shard"], encode_name(row["key"]))}
    names = {(shard, key) for shard, keys in wanted.items() for key in keys}
    if not rows:
        first = f"the first is {'/'.join(min(names))[:_SHOWN]!r}" if names else "it is empty"
        raise ListError(f"{location}: no sample of {run.store.url()} is listed; {first}")
    already = left_out_of(read_groups(run, view.excluded))
    out = set(zip(already["shard"].to_pylist(), already["index"].to_pylist(), strict=True))
    rows = [row for row in rows if (row["shard"], row["index"]) not in out]
    return pa.Table.from_pylist(rows, schema=GROUPS), len(names - known)


def _rows(run: Run, view: View, wanted: dict[str, set[str]]) -> Iterator[dict[str, Any]]:
    for shard in view.shards:
        keys = wanted.get(shard.shard)
        if not keys:
            continue
        file = next(file for file in shard.files if file.table == "samples")
        for row in read_data(run, file, ["index", "key", "sha256", "status"]).to_pylist():
            key = row["key"]
            if row["status"] == "ok" and (key in keys or encode_name(key) in keys):
                place = {"shard": shard.shard, "index": row["index"], "key": key}
                why = {"kind": LISTED, "reason": SampleReason.SKIPPED.value}
                yield {**place, **why, "sha256": row["sha256"]}
