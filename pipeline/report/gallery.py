"""Choose the samples that show whether a cleaning is right: those nearest the threshold first.

A sample's *margin* is how far it is from changing sides: of a kept one the smallest distance of a
kept text above its threshold, of a filtered one (negative) that of its best text below it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shards.query.query import connect
from shards.run.run import Run
from shards.run.scoring.score_set import with_scores
from shards.run.snapshot import SnapshotShard
from shards.run.view import View
from shards.schema import ALL_SCHEMAS, JudgedTextRow, SampleRow

if TYPE_CHECKING:
    import duckdb

    from pipeline.report.thumbnail import SampleId

MOST_SHARDS = 32  # each is an input tar that is read from its beginning
COUNT = 24
CONTRAST = 6  # one in so many samples is a clear case, for comparison

_JUDGED = """
CREATE TEMP TABLE judged AS
WITH threshold(origin, at_least) AS (VALUES {values}),
verdict AS (
  SELECT shard, index, keep, reason,
    CASE WHEN isfinite({score}) THEN {score}::DOUBLE - at_least::DOUBLE END AS margin
  FROM texts JOIN decisions USING (shard, index, text_no) LEFT JOIN threshold USING (origin)
  {joined}
),
best AS (
  SELECT shard, index, bool_or(keep) AS kept, min(margin) FILTER (keep) AS least,
    max(margin) FILTER (reason IN ('itm_below_threshold', 'score_below_threshold')) AS most
  FROM verdict GROUP BY shard, index
)
SELECT shard, index, CASE WHEN status <> 'ok' THEN 'rejected'
    WHEN kept THEN 'kept' ELSE 'filtered' END AS outcome,
  CASE WHEN kept THEN least ELSE most END AS margin,
  samples.reason AS reason
FROM samples LEFT JOIN best USING (shard, index)
"""
_ADDED = """
LEFT JOIN (SELECT shard, index, text_no, value FROM scores WHERE scorer || '.' || name = ?)
  USING (shard, index, text_no)
"""
_NEAREST = """
SELECT shard, index FROM judged WHERE outcome = ?
ORDER BY abs(margin) {order} NULLS LAST, shard, index LIMIT ?
"""
_REASONS = """
SELECT shard, index FROM judged WHERE outcome = 'rejected'
QUALIFY row_number() OVER (PARTITION BY reason ORDER BY shard, index) <= ?
ORDER BY row_number() OVER (PARTITION BY reason ORDER BY shard, index), reason, shard, index LIMIT ?
"""
_FACTS = """
SELECT samples.* EXCLUDE (phash, meta), outcome, margin
FROM samples JOIN judged USING (shard, index) JOIN chosen USING (shard, index)
"""
_TEXTS = """
SELECT shard, index, text_no, origin, text, itm, itc, logprob, truncated, keep, reason
FROM texts JOIN decisions USING (shard, index, text_no) JOIN chosen USING (shard, index)
ORDER BY shard, index, text_no
"""


class PickedRow(SampleRow, total=False):
    """A sample's row joined with its outcome (kept, filtered, rejected) and its margin."""

    outcome: str
    margin: float | None


@dataclass(frozen=True, slots=True)
class GalleryPick:
    """One sample of the gallery: its row of the samples table, and its texts with decisions."""

    facts: PickedRow
    texts: list[JudgedTextRow] = field(default_factory=list)
    # by text_no: name, score and rank of scorers that are compared
    compared: dict[int, list[tuple[str, float, float]]] = field(default_factory=dict)

    @property
    def sample_id(self) -> "SampleId":
        """The sample's key in the tables: SHARD and index."""
        return self.facts["shard"], self.facts["index"]


@dataclass(frozen=True, slots=True)
class Gallery:
    """The samples chosen, by group (kept, clearly_kept, …), and the shards they come from."""

    groups: dict[str, list[GalleryPick]]
    shards: tuple[SnapshotShard, ...]

    def picks(self) -> list[GalleryPick]:
        """List all samples chosen, group by group."""
        return [pick for picks in self.groups.values() for pick in picks]


def choose_gallery(run: Run, view: View, count: int = COUNT) -> Gallery:
    """Choose up to `count` samples of each outcome, from few enough shards to read again."""
    shards = spread(view.shards)
    by = view.basis.by
    sets = [by.partition(".")[0]] if "." in by else []
    scored = with_scores(run, shards, sets)
    with connect(run, scored, ALL_SCHEMAS) as connection:
        judge_samples(connection, view.thresholds, by)
        clear = count // CONTRAST
        ids: dict[str, list[SampleId]] = {}
        for outcome in ("kept", "filtered"):
            nearest = _query(connection, _NEAREST.format(order="ASC"), outcome, count - clear)
            clearest = _query(connection, _NEAREST.format(order="DESC"), outcome, clear)
            ids[outcome] = nearest
            ids[f"clearly_{outcome}"] = [sample for sample in clearest if sample not in nearest]
        ids["rejected"] = _query(connection, _REASONS, count, count)
        picks = look_up(connection, [sample for group in ids.values() for sample in group])
    groups = {name: [picks[sample] for sample in group] for name, group in ids.items()}
    groups["rejected"].sort(key=lambda pick: (pick.facts["reason"] or "", *pick.sample_id))
    return Gallery(groups, shards)


def spread(shards: Sequence[SnapshotShard]) -> tuple[SnapshotShard, ...]:
    """Take at most MOST_SHARDS: half to show every outcome and reason, half evenly spread."""
    full = [shard for shard in shards if shard.counts.samples_in]
    if len(full) <= MOST_SHARDS:
        return tuple(full)
    shown: set[str] = set()
    chosen: set[int] = set()
    for index, shard in enumerate(full):
        new = _outcomes(shard) - shown
        if new and len(chosen) < MOST_SHARDS // 2:
            chosen.add(index)
            shown |= new
    others = [index for index in range(len(full)) if index not in chosen]
    left = MOST_SHARDS - len(chosen)
    chosen |= {others[number * len(others) // left] for number in range(left)}
    return tuple(full[index] for index in sorted(chosen))


def _outcomes(shard: SnapshotShard) -> set[str]:
    counts = shard.counts
    named = {"kept": counts.kept, "filtered": counts.filtered} | counts.rejected_by_reason
    return {name for name, number in named.items() if number}


def judge_samples(
    connection: "duckdb.DuckDBPyConnection", thresholds: dict[str, float], by: str
) -> None:
    """Compute each sample's outcome and margin; thresholds are float32 here, as in judging."""
    rows = list(thresholds.items()) or [("", 0.0)]
    values = ", ".join(["(?::VARCHAR, ?::FLOAT)"] * len(rows))
    is_added = "." in by
    sql = _JUDGED.format(
        values=values, score="value" if is_added else by, joined=_ADDED if is_added else ""
    )
    thresholds_given = [value for row in rows for value in row]
    connection.execute(sql, [*thresholds_given, *([by] if is_added else [])])


def _query(
    connection: "duckdb.DuckDBPyConnection", sql: str, *values: str | int
) -> "list[SampleId]":
    return connection.execute(sql, list(values)).fetchall()


def look_up(
    connection: "duckdb.DuckDBPyConnection", ids: "Iterable[SampleId]"
) -> "dict[SampleId, GalleryPick]":
    """Read the facts and texts of samples, which `judge_samples` has judged; once for all."""
    connection.execute("CREATE TEMP TABLE chosen (shard VARCHAR, index INTEGER)")
    for sample in dict.fromkeys(ids):
        connection.execute("INSERT INTO chosen VALUES (?, ?)", list(sample))
    picks = {pick.sample_id: pick for pick in map(GalleryPick, _rows(connection, _FACTS))}
    for row in _rows(connection, _TEXTS):
        picks[row["shard"], row["index"]].texts.append(row)
    return picks


def _rows(connection: "duckdb.DuckDBPyConnection", sql: str) -> list[Any]:
    answer = connection.execute(sql)
    names = [column[0] for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
