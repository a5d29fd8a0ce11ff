"""Two scorers side by side: how far they agree, and the pairs on which they disagree most.

They are compared by rank within each origin, and each at the share of texts that the view keeps:
what scores mean differs from model to model, which text is better than which does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.report.gallery import Gallery, GalleryPick, judge_samples, look_up, spread
from shards.query.query import connect
from shards.run.commit import TextCounts, total_counts
from shards.run.run import Run
from shards.run.scoring.expression import TEXT_COLUMNS, find_column, score_columns
from shards.run.scoring.score_set import (
    has_itm,
    open_score_set,
    own_scorers,
    score_set_names,
    with_scores,
)
from shards.run.view import View
from shards.schema import ALL_SCHEMAS

if TYPE_CHECKING:
    import duckdb

    from pipeline.report.thumbnail import SampleId

POINTS = 800  # of the scatter: it shows a shape, and the numbers stand beside it
DISAGREEING = 8  # samples of either kind
_ADDED = (
    "LEFT JOIN (SELECT shard, index, text_no, value AS {side} FROM scores "
    "WHERE scorer || '.' || name = ?) USING (shard, index, text_no)"
)
_RANKED = """
CREATE TEMP TABLE ranked AS
WITH pairs AS (
  SELECT shard, index, text_no, origin, ({first})::DOUBLE AS x, ({second})::DOUBLE AS y
  FROM texts {joins}
),
finite AS (
  SELECT *, count(*) OVER (PARTITION BY origin) AS of_origin FROM pairs
  WHERE isfinite(x) AND isfinite(y)
)
SELECT *,  -- ties share their middle rank; from 0 to 1
  (rank() OVER (PARTITION BY origin ORDER BY x)
    + (count(*) OVER (PARTITION BY origin, x) - 1) / 2.0 - 0.5) / of_origin AS x_rank,
  (rank() OVER (PARTITION BY origin ORDER BY y)
    + (count(*) OVER (PARTITION BY origin, y) - 1) / 2.0 - 0.5) / of_origin AS y_rank
FROM finite
"""
_AGREEMENT = """
SELECT origin, count(*), corr(x_rank, y_rank),
  count(*) FILTER (x_rank > 1 - share AND y_rank > 1 - share),
  count(*) FILTER (x_rank > 1 - share AND y_rank <= 1 - share),
  count(*) FILTER (x_rank <= 1 - share AND y_rank > 1 - share),
  count(*) FILTER (x_rank <= 1 - share AND y_rank <= 1 - share)
FROM ranked JOIN shares USING (origin) GROUP BY origin ORDER BY origin
"""
_POINTS = """
SELECT origin, x, y FROM ranked
ORDER BY hash(shard, index, text_no), shard, index, text_no LIMIT ?
"""
_DISAGREED = """
SELECT shard, index FROM ranked GROUP BY shard, index HAVING max(x_rank - y_rank) > 0
ORDER BY max(x_rank - y_rank) DESC, shard, index LIMIT ?
"""
_SHOWN = """
SELECT shard, index, text_no, x, y, x_rank, y_rank FROM ranked JOIN chosen USING (shard, index)
"""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two scorers rank the texts of one origin, and what each would keep, at equal shares."""

    origin: str
    texts: int
    rank_correlation: float | None
    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def same(self) -> int:
        """The number of texts on which they decide alike."""
        return self.both + self.neither


@dataclass(frozen=True, slots=True)
class ScorerComparison:
    """Two scorers compared, on so many shards of a view."""

    first: str
    second: str
    agreements: tuple[Agreement, ...]
    points: tuple[tuple[str, float, float], ...]
    disagreements: Gallery


def scores_to_compare(run: Run, view: View) -> tuple[str, str] | None:
    """Choose what a page compares: the filter's match, and the score of the view, or the first.

    None where there is one score alone.
    """
    own = [f"{scorer}.{scores[0]}" for scorer, scores in own_scorers(run).items()]
    there = [*(["itm"] if has_itm(run) else []), *own]
    if view.basis.by != there[0]:
        return there[0], view.basis.by
    there += [open_score_set(run, name).qualified[0] for name in score_set_names(run)]
    return (there[0], there[1]) if len(there) > 1 else None


def compare_scorers(run: Run, view: View, first: str, second: str) -> ScorerComparison:
    """Compare two scores of a view's texts, on the shards of its gallery; ExpressionError."""
    sets = [open_score_set(run, name) for name in score_set_names(run)]
    qualified = own_scorers(run) | {scores.name: scores.scores for scores in sets}
    columns = TEXT_COLUMNS | score_columns(qualified)
    scores = {name: column for name, column in columns.items() if column.is_score}
    names = [find_column(name, scores).name for name in (first, second)]
    by = view.basis.by
    used = {name.partition(".")[0] for name in (*names, by) if "." in name}
    shards = with_scores(run, spread(view.shards), sorted(used))
    with connect(run, shards, ALL_SCHEMAS) as connection:
        judge_samples(connection, view.thresholds, by)
        _rank(connection, names)
        shares = _shares(view)
        connection.execute("CREATE TEMP TABLE shares (origin VARCHAR, share DOUBLE)")
        for origin, share in shares.items():
            connection.execute("INSERT INTO shares VALUES (?, ?)", [origin, share])
        agreements = tuple(Agreement(*row) for row in connection.execute(_AGREEMENT).fetchall())
        points = tuple(connection.execute(_POINTS, [POINTS]).fetchall())
        ids = {
            "first": _ids(connection, _DISAGREED),
            "second": _ids(connection, _DISAGREED.replace("x_rank - y_rank", "y_rank - x_rank")),
        }
        picks = look_up(connection, [sample for group in ids.values() for sample in group])
        _add_scores(connection, names, picks)
    groups = {name: [picks[sample] for sample in group] for name, group in ids.items()}
    return ScorerComparison(names[0], names[1], agreements, points, Gallery(groups, shards))


def _rank(connection: "duckdb.DuckDBPyConnection", names: Sequence[str]) -> None:
    sides = dict(zip(("first_score", "second_score"), names, strict=True))
    is_added = {side: "." in name for side, name in sides.items()}
    sql = _RANKED.format(
        first="first_score" if is_added["first_score"] else f'texts."{names[0]}"',
        second="second_score" if is_added["second_score"] else f'texts."{names[1]}"',
        joins=" ".join(_ADDED.format(side=side) for side in sides if is_added[side]),
    )
    connection.execute(sql, [name for side, name in sides.items() if is_added[side]])


def _shares(view: View) -> dict[str, float]:
    texts = total_counts(shard.counts for shard in view.shards).texts
    return {origin: _share(counts) for origin, counts in texts.items()}


def _share(counts: TextCounts) -> float:
    return counts.kept / counts.given if counts.given else 0.0


def _ids(connection: "duckdb.DuckDBPyConnection", sql: str) -> "list[SampleId]":
    return connection.execute(sql, [DISAGREEING]).fetchall()


def _add_scores(
    connection: "duckdb.DuckDBPyConnection",
    names: Sequence[str],
    picks: "dict[SampleId, GalleryPick]",
) -> None:
    """Put both scores, and the ranks they give, beside each text that is shown."""
    by_text = {tuple(row[:3]): row[3:] for row in connection.execute(_SHOWN).fetchall()}
    for (shard, index), pick in picks.items():
        for text in pick.texts:
            if values := by_text.get((shard, index, text["text_no"])):
                pick.compared[text["text_no"]] = list(
                    zip(names, values[:2], values[2:], strict=True)
                )
