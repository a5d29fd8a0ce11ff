"""In which languages a run's web texts are, and how many of each are kept.

That takes two tables of each shard. Of a large run some shards stand for all: to open 100,000 files
for a few numbers takes minutes.
"""

from collections.abc import Sequence
from typing import Any

from shards.query.query import connect
from shards.reasons import TextReason
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard

MOST_SHARDS = 500

_COUNTS = """
SELECT language, count(*), count(keep), count(*) FILTER (keep), count(*) FILTER (text_reason = ?)
FROM samples LEFT JOIN (SELECT * FROM decisions WHERE text_no = 0) USING (shard, "index")
WHERE language IS NOT NULL AND status = 'ok' OR text_reason = ?
GROUP BY language ORDER BY count(*) DESC, language
"""


def language_statistics(run: Run, shards: Sequence[SnapshotShard]) -> dict[str, Any]:
    """Count web texts by language, the commonest first: judged, kept, and kept out unjudged.

    A screening judges none. Texts of runs that were made before languages were told are not there.
    """
    some = shards[:: -(-len(shards) // MOST_SHARDS) or 1]
    with connect(run, some, ["samples", "decisions"]) as connection:
        rows = connection.execute(_COUNTS, [TextReason.LANGUAGE] * 2).fetchall()
    return {
        "languages": {
            language: {"texts": texts, "in": judged, "kept": kept, "kept_out": out}
            for language, texts, judged, kept, out in rows
        },
        "languages_of_shards": len(some),
    }
