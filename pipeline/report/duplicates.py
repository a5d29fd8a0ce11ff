"""Groups of the same picture for a page: the largest, each with its keeper and some others."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.card import sample_name
from pipeline.report.thumbnail import make_thumbnails
from shards.run.exclusion import left_out_of, read_groups
from shards.run.run import Run
from shards.run.view import View
from shards.schema import SampleRow

GROUPS, MEMBERS = 8, 3  # each picture may stand in another tar, which is read from its beginning
_COLUMNS = [
    *("group", "run", "shard", "index", "key", "sha256"),
    *("kind", "distance", "similarity", "reason"),
]


def choose_groups(groups: pa.Table) -> list[list[dict[str, Any]]]:
    """Choose the largest groups: of each the keeper, and the members that are farthest from it.

    Where a mistake is likeliest, it shows first.
    """
    grouped = groups.filter(pc.is_valid(groups["group"])).select(_COLUMNS)
    sizes = grouped["group"].value_counts().to_pylist()
    sizes.sort(key=lambda size: (-size["counts"], size["values"]))
    chosen = []
    for size in sizes[:GROUPS]:
        rows = grouped.filter(pc.equal(grouped["group"], size["values"])).to_pylist()
        rows.sort(key=lambda row: (row["reason"] is not None, -(row["distance"] or 0)))
        if rows[0]["reason"] is None:
            chosen.append(rows)
    return chosen


def show_groups(run: Run, view: View, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Put together what a page shows of a view's groups; none where it has none."""
    groups = read_groups(run, view.excluded)
    chosen = choose_groups(groups)
    out = left_out_of(groups)  # keepers, too, where another view stands on this one
    left_out = set(zip(out["shard"].to_pylist(), out["index"].to_pylist(), strict=True))
    shown = [rows[: MEMBERS + 1] for rows in chosen]
    own = [_as_sample(row) for rows in shown for row in rows if row["run"] is None]
    thumbnails = make_thumbnails(run, own, tell)
    return [
        {
            "size": len(rows),
            "pictures": [
                {
                    "name": sample_name(_as_sample(row)),
                    "elsewhere": row["run"],
                    "picture": None if row["run"] else thumbnails[row["shard"], row["index"]],
                    "kind": row["kind"],
                    "distance": row["distance"],
                    "similarity": row["similarity"],
                    "kept": row["reason"] is None,
                    "left_out": row["run"] is None and (row["shard"], row["index"]) in left_out,
                }
                for row in some
            ],
        }
        for rows, some in zip(chosen, shown, strict=True)
    ]


def _as_sample(row: dict[str, Any]) -> SampleRow:
    """Take what a group says of a picture as a row of samples, read in part."""
    return SampleRow(
        shard=row["shard"],
        index=row["index"],
        key=row["key"],
        sha256=row["sha256"],
        reason=row["reason"],
    )
