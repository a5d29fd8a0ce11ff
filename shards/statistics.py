"""The numbers of a run, finished or not: what went in, what came of it, and how texts scored."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from shards.inputs.text import NO_TEXTS, text_source
from shards.query.languages import language_statistics
from shards.query.query import connect
from shards.reasons import SampleReason, TextReason
from shards.run.attempt import read_quarantined
from shards.run.commit import Counts, TextCounts, total_counts
from shards.run.exclusion import skip_list_length
from shards.run.run import Run
from shards.run.scoring.distribution import BINS, Scores, scores_of
from shards.run.scoring.score_set import has_itm, open_score_set, own_scorers, score_set_names
from shards.run.snapshot import SnapshotShard
from shards.run.view import View, open_view

_DAMAGED_NAMED, _FIELDS_NAMED, _SIDECARS_LOOKED_AT = 20, 20, 100


def run_statistics(run: Run, view: View | None = None) -> dict[str, Any]:
    """Count a run by one of its views (default: its own), as `capfilt stats --json` prints it."""
    view = view or open_view(run)
    shards = view.shards
    scores = scores_of(run, shards, view.snapshot)
    quarantined = len(read_quarantined(run).keys() - {shard.shard for shard in shards})
    counts = total_counts(shard.counts for shard in shards)
    lacks_all = _lacks_all_texts(run, counts)
    return {
        "kind": "screen" if run.only_screens else "clean",
        "samples_in": counts.samples_in,
        "kept": counts.kept,
        "filtered": counts.filtered,
        "rejected": counts.rejected,
        "rejected_by_reason": counts.rejected_by_reason,
        **({"to_skip": to_skip} if (to_skip := skip_list_length(run)) else {}),
        "texts": {origin: texts.model_dump() for origin, texts in counts.texts.items()},
        "text_reasons": counts.text_reasons,
        **language_statistics(run, shards),
        "english_filter": view.basis.by in ("itm", "itc") and has_itm(run),  # BLIP's vocabulary
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
        "histograms": _histograms(scores, shards),
        "highest_itm": scores.highest,
        **_added_scores(run, len(shards)),
        **_candidates(run, counts),
    }


def _added_scores(run: Run, committed: int) -> dict[str, Any]:
    """Name the scores beside the texts' own columns, and of how many shards they are."""
    named = {
        scorer: {"names": [f"{scorer}.{score}" for score in scores], "shards": committed}
        for scorer, scores in own_scorers(run).items()
    }
    for name in score_set_names(run):
        scores = open_score_set(run, name)
        done = len(scores.record.store.list("commits"))
        named[name] = {"names": list(scores.qualified), "shards": done}
    return {"scores": named} if named else {}


def _candidates(run: Run, counts: Counts) -> dict[str, Any]:
    """Count the texts from outside, and those of them whose sample came to the models."""
    rows: dict[str, int] = run.identity.get("candidates", {}).get("rows", {})
    if not rows:
        return {}
    return {
        "candidates": {
            origin: {"given": given, "scored": counts.texts.get(origin, TextCounts()).given}
            for origin, given in rows.items()
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
    """Whether texts were looked for, and not one sample came with any.

    A screening counts no texts: there each sample has to say that it misses its own.
    """
    missing = set(counts.text_reasons) == {TextReason.MISSING} and "web" not in counts.texts
    if run.only_screens:
        missing = missing and counts.text_reasons[TextReason.MISSING] >= counts.kept
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


def _histograms(scores: Scores, shards: Sequence[SnapshotShard]) -> dict[str, Any]:
    """Write the bins of each origin that has texts, scored or not, with their edges."""
    origins = {origin for shard in shards for origin in shard.counts.texts} | scores.counts.keys()
    edges = [place / BINS for place in range(BINS + 1)]
    return {
        origin: {"edges": edges, "counts": scores.counts.get(origin, [0] * BINS)}
        for origin in sorted(origins)
    }
