"""The toy world's judges: what is right of a picture, by the truth that its sidecar keeps.

`capfilt evaluate --judge toy` finds `caption_is_right` and `pair_is_right` here, by their names.
"""

import json
from collections import defaultdict

from pipeline.evaluate.pairs import LabelledPair, Meta
from pipeline.toy.world import is_true, scene_from_truth
from shards.query.query import connect, run_query
from shards.run.run import Run
from shards.run.snapshot import open_snapshot

_TEXTS = """
SELECT samples.meta, texts.origin, texts.text, decisions.keep
FROM texts JOIN decisions USING (shard, index, text_no) JOIN samples USING (shard, index)
"""


def caption_is_right(text: str, meta: Meta) -> bool | None:
    """Judge a caption by a sidecar or annotation row; None where that is of something else."""
    try:
        scene = scene_from_truth(meta.get("toy", meta))
    except (KeyError, TypeError, ValueError):
        return None
    return is_true(text, scene)


def pair_is_right(pair: LabelledPair) -> bool | None:
    """Judge a pair by its sidecar; None where that does not say whether the text is true."""
    truth = pair.meta.get("toy")
    is_noisy = truth.get("is_noisy") if isinstance(truth, dict) else None
    return not is_noisy if isinstance(is_noisy, bool) else None


def let_through(run: Run) -> dict[str, dict[str, float]]:
    """Compute for each origin the shares of its texts that are true and that are kept.

    `true` of all texts, `kept` of all texts, `true_of_kept` of the kept ones.
    """
    counts: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    with connect(run, open_snapshot(run).shards) as connection:
        for meta, origin, text, keep in run_query(connection, _TEXTS).rows:
            truth = is_true(text, scene_from_truth(json.loads(meta)["toy"]))
            counts[origin].append((truth, keep))
    return {origin: _shares(verdicts) for origin, verdicts in sorted(counts.items())}


def _shares(verdicts: list[tuple[bool, bool]]) -> dict[str, float]:
    kept = [truth for truth, keep in verdicts if keep]
    return {
        "true": sum(truth for truth, _ in verdicts) / len(verdicts),
        "kept": len(kept) / len(verdicts),
        "true_of_kept": sum(kept) / len(kept) if kept else 0.0,
    }
