"""What a cleaning of the toy world let through, by the truth that its sidecars keep."""

import json
from collections import defaultdict

from pipeline.toy.world import is_true, scene_from_truth
from shards.query import connect, run_query
from shards.run.run import Run
from shards.run.snapshot import open_snapshot

_TEXTS = """
SELECT samples.meta, texts.origin, texts.text, decisions.keep
FROM texts JOIN decisions USING (shard, index, text_no) JOIN samples USING (shard, index)
"""


def let_through(run: Run) -> dict[str, dict[str, float]]:
    """Give for each origin the shares of its texts that are true and that are kept.

    `true` of all texts, `kept` of all texts, `true_of_kept` of the kept ones.
    """
    counts: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    with connect(run, open_snapshot(run).shards) as connection:
        for meta, origin, text, keep in run_query(connection, _TEXTS).rows:
            truth = is_true(text, scene_from_truth(json.loads(meta)["toy"]))
            counts[origin].append((truth, keep))
    return {origin: _shares(found) for origin, found in sorted(counts.items())}


def _shares(found: list[tuple[bool, bool]]) -> dict[str, float]:
    kept = [truth for truth, keep in found if keep]
    return {
        "true": sum(truth for truth, _ in found) / len(found),
        "kept": len(kept) / len(found),
        "true_of_kept": sum(kept) / len(kept) if kept else 0.0,
    }
