"""The numbers of a run, finished or not: what went in, what came of it, and how texts scored."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from shards.inputs.text import NO_TEXTS, text_source
from shards.query import connect
from shards.reasons import SampleReason, TextReason
from shards.run.attempt import read_quarantined
from shards.run.commit import Counts, total_counts
from shards.run.run import Run
from shards.run.scoring.score_set import open_score_set, score_set_names
from shards.run.snapshot import SnapshotShard
from shards.run.view import View, open_view

_BINS = 20
_DAMAGED_NAMED, _FIELDS_NAMED, _SIDECARS_LOOKED_AT = 20, 20, 100


def run_statistics(run: Run, view: View | None = None) -> dict[str, Any]:
    """Count a run by one of its views (default: its own), as `capfilt stats --json` prints it."""
    shards = (view or open_view(run)).shards
    quarantined = len(read_quarantined(run).keys() - {shard.shard for shard in shards})
    counts = total_counts(shard.counts for shard in shards)
    lacks_all = _lacks_all_texts(run, counts)
    return {
        "samples_in": counts.samples_in,
        "kept": counts.kept,
        "filtered": counts.filtered,
        "rejected": counts.rejected,
        "rejected_by_reason": counts.rejected_by_reason,
        "texts": {origin: texts.model_dump() for origin, texts in counts.texts.items()},
        "text_reasons": counts.text_reasons,
        "lacks_all_texts": lacks_all,
        "sidecar_fields": _sidecar_fields(run, shards) if lacks_all else [],  # texts may be there
        "shards": {
            "total": len(run.shards),
            "committed": len(shards),
            "damaged": sum(shard.state.damaged for shard in shards),
            "quarantined": quarantined,
            "pending": len(run.shards) - len(shards) - quarantined,
        },
        "damaged_shards": [
            {"shard": shard.shard, **shard.state.model_dump(mode="json")}
            for shard in shards
            if shard.state.damaged
        ][:_DAMAGED_NAMED],
        "rows_apart": sum(_rows_apart(shard.counts) for shard in shards),
        "histograms": itm_histograms(run, shards),
        "highest_itm": _highest_itm(run, shards),
        **_added_scores(run),
    }


def _added_scores(run: Run) -> dict[str, Any]:
    """Name the scores that were made later or elsewhere, and of how many shards they are."""
    sets = [open_score_set(run, name) for name in score_set_names(run)]
    if not sets:
        return {}
    return {
        "scores": {
            scores.name: {
                "names": list(scores.qualified),
                "shards": len(scores.record.store.list("commits")),
            }
            for scores in sets
        }
    }


def _rows_apart(counts: Counts) -> int:
    """Count the rows that came of samples torn apart: of a shard with any, all that lack a part.

    What comes first of such a sample is `image_missing`, or has no text; what comes later is
    `not_adjacent`.
    """
    rejected = counts.rejected_by_reason
    if SampleReason.NOT_ADJACENT not in rejected:
        return 0
    torn = rejected[SampleReason.NOT_ADJACENT] + rejected.get(SampleReason.IMAGE_MISSING, 0)
    return torn + counts.text_reasons.get(TextReason.MISSING, 0)


def _lacks_all_texts(run: Run, counts: Counts) -> bool:
    """Whether texts were looked for, and not one sample came with any."""
    missing = set(counts.text_reasons) == {TextReason.MISSING} and "web" not in counts.texts
    return missing and text_source(run.identity) != NO_TEXTS


def _sidecar_fields(run: Run, shards: Sequence[SnapshotShard]) -> list[str]:
    """Name the fields of some sidecars that hold strings, the commonest first."""
    with connect(run, shards, ["samples"]) as connection:
        sidecars = connection.execute(
            "SELECT meta FROM samples WHERE meta IS NOT NULL LIMIT ?", [_SIDECARS_LOOKED_AT]
        ).fetchall()
    fields = Counter(
        name
        for (sidecar,) in sidecars
        for name, value in json.loads(sidecar).items()
        if isinstance(value, str)
    )
    return [name for name, _ in fields.most_common(_FIELDS_NAMED)]


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
