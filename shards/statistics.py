"""The numbers of a run, finished or not: what went in, what came of it, and how texts scored."""

from collections.abc import Sequence
from typing import Any

from shards.query import connect
from shards.run.attempt import read_quarantined
from shards.run.commit import total_counts
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard
from shards.run.view import View, open_view

_BINS = 20


def run_statistics(run: Run, view: View | None = None) -> dict[str, Any]:
    """Count a run by one of its views (default: its own), as `capfilt stats --json` prints it."""
    shards = (view or open_view(run)).shards
    quarantined = len(read_quarantined(run).keys() - {shard.shard for shard in shards})
    counts = total_counts(shard.counts for shard in shards)
    return {
        "samples_in": counts.samples_in,
        "kept": counts.kept,
        "filtered": counts.filtered,
        "rejected": counts.rejected,
        "rejected_by_reason": counts.rejected_by_reason,
        "texts": {origin: texts.model_dump() for origin, texts in counts.texts.items()},
        "shards": {
            "total": len(run.shards),
            "committed": len(shards),
            "damaged": sum(shard.state.damaged for shard in shards),
            "quarantined": quarantined,
            "pending": len(run.shards) - len(shards) - quarantined,
        },
        "histograms": itm_histograms(run, shards),
        "highest_itm": _highest_itm(run, shards),
    }


def _highest_itm(run: Run, shards: Sequence[SnapshotShard]) -> dict[str, float]:
    """Find the best match probability of each origin that has any."""
    with connect(run, shards, ["texts"]) as connection:
        best = connection.execute(
            "SELECT origin, max(itm)::DOUBLE FROM texts WHERE isfinite(itm) GROUP BY ALL ORDER BY 1"
        ).fetchall()
    return dict(best)


def itm_histograms(run: Run, shards: Sequence[SnapshotShard]) -> dict[str, Any]:
    """Count match probabilities per origin in 20 bins from 0 to 1; the last one holds 1 too.

    Texts without a score, or with one that is not finite, are in no bin.
    """
    origins = sorted({origin for shard in shards for origin in shard.counts.texts})
    counts = {origin: [0] * _BINS for origin in origins}
    with connect(run, shards, ["texts"]) as connection:
        binned = connection.execute(
            "SELECT origin, least(greatest(floor(itm::DOUBLE * ?), 0), ? - 1)::INT AS bin, "
            "count(*) FROM texts WHERE isfinite(itm) GROUP BY ALL ORDER BY ALL",
            [_BINS, _BINS],
        ).fetchall()
    for origin, place, count in binned:
        counts.setdefault(origin, [0] * _BINS)[place] = count
    edges = [place / _BINS for place in range(_BINS + 1)]
    return {origin: {"edges": edges, "counts": bins} for origin, bins in counts.items()}
