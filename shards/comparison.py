"""Two views side by side: what each keeps, and on which samples and texts they differ.

Views of one run are joined text by text. Runs over the same inputs share their samples and web
texts; what each one's captioner wrote differs. The join goes by groups of shards, so that its
memory does not grow with the run.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shards.query.query import data_set, database, naming_damage
from shards.run.commit import Counts, TextCounts, total_counts
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard
from shards.run.view import OWN, View

_TEXTS_AT_A_TIME = 2_000_000
_SHARDS_AT_A_TIME = 1_000  # what is known of each open file takes as much as some hundred texts
_PLACES = {
    (True, True): "both",
    (True, False): "only_here",
    (False, True): "only_there",
    (False, False): "neither",
}
_SAME_IMAGES = """
CREATE TABLE pairs AS SELECT shard, index FROM samples JOIN other_samples USING (shard, index)
WHERE samples.sha256 IS NOT DISTINCT FROM other_samples.sha256
"""
_SAMPLES = """
WITH ours AS (SELECT shard, index, bool_or(keep) AS keep FROM here GROUP BY ALL),
theirs AS (SELECT shard, index, bool_or(keep) AS keep FROM there GROUP BY ALL)
SELECT coalesce(ours.keep, false), coalesce(theirs.keep, false), count(*) FROM pairs
LEFT JOIN ours USING (shard, index) LEFT JOIN theirs USING (shard, index) GROUP BY ALL
"""
_TEXTS = """
SELECT origin, here.keep, there.keep, count(*) FROM pairs JOIN here USING (shard, index)
JOIN there USING (shard, index, text_no) JOIN texts USING (shard, index, text_no)
WHERE $all OR text_no = 0 GROUP BY ALL
"""
_ROWS_IN_COMMON = "SELECT count(*) FROM samples JOIN other_samples USING (shard, index)"

_Common = tuple[SnapshotShard, SnapshotShard]  # a shard as each of two views has it


@dataclass(frozen=True, slots=True)
class ViewSide:
    """A view, and the run that it belongs to."""

    run: Run
    view: View


def compare(here: ViewSide, there: ViewSide) -> dict[str, Any]:
    """Compare two views of one run, or of two; `difference` is here less there."""
    others = {shard.shard: shard for shard in there.view.shards}
    common = [(s, others[s.shard]) for s in here.view.shards if s.shard in others]
    same_run = here.run.store.url() == there.run.store.url()
    joined = _Joined()
    for group in _groups(common):
        joined.add(here.run, there.run, group, same_run)
    return {
        "here": _described(here),
        "there": _described(there),
        **side_by_side(here.view, there.view),
        "shards_in_common": len(common),
        "joined": {
            "texts_of": "all origins" if same_run else "web texts",
            "different_images": joined.rows - joined.samples.total(),
            "samples": _complete(joined.samples),
            "texts": {origin: _complete(joined.texts[origin]) for origin in sorted(joined.texts)},
        },
    }


def side_by_side(here: View, there: View) -> dict[str, Any]:
    """Return the counts of two views beside each other: samples by outcome, texts by origin."""
    ours, theirs = (total_counts(shard.counts for shard in view.shards) for view in (here, there))
    outcomes = ("samples_in", "kept", "filtered", "rejected")
    return {
        "samples": {name: _pair(getattr(ours, name), getattr(theirs, name)) for name in outcomes},
        "texts": {
            origin: _text_pairs(ours, theirs, origin)
            for origin in sorted(ours.texts.keys() | theirs.texts.keys())
        },
    }


def _text_pairs(ours: Counts, theirs: Counts, origin: str) -> dict[str, dict[str, int]]:
    one, two = (counts.texts.get(origin, TextCounts()) for counts in (ours, theirs))
    return {"in": _pair(one.given, two.given), "kept": _pair(one.kept, two.kept)}


def _pair(here: int, there: int) -> dict[str, int]:
    return {"here": here, "there": there, "difference": here - there}


def _described(side: ViewSide) -> dict[str, Any]:
    return {
        "run": side.run.store.url(),
        "view": side.view.name or OWN,
        "snapshot": side.view.snapshot,
        "thresholds": side.view.thresholds,
        **side.view.basis.as_json(),
    }


class _Joined:
    """Counts of where both keep, one, or none."""

    def __init__(self) -> None:
        self.rows = 0  # samples of both, the same image or not
        self.samples: Counter[str] = Counter()
        self.texts: dict[str, Counter[str]] = {}

    def add(self, here: Run, there: Run, group: Sequence[_Common], same_run: bool) -> None:
        ours, theirs = [pair[0] for pair in group], [pair[1] for pair in group]
        tables = {
            "samples": data_set(here, ours, "samples"),
            "other_samples": data_set(there, theirs, "samples"),
            "texts": data_set(here, ours, "texts"),
            "here": data_set(here, ours, "decisions"),
            "there": data_set(there, theirs, "decisions"),
        }
        with (
            database(tables) as connection,
            naming_damage(here, ours, ["samples", "texts", "decisions"]),
            naming_damage(there, theirs, ["samples", "decisions"]),
        ):
            ((rows,),) = connection.execute(_ROWS_IN_COMMON).fetchall()
            self.rows += rows
            connection.execute(_SAME_IMAGES)
            for one, two, count in connection.execute(_SAMPLES).fetchall():
                self.samples[_PLACES[one, two]] += count
            for origin, one, two, count in connection.execute(_TEXTS, {"all": same_run}).fetchall():
                self.texts.setdefault(origin, Counter())[_PLACES[one, two]] += count


def _groups(common: Sequence[_Common]) -> Iterator[list[_Common]]:
    """Part the shards into groups of about so many texts."""
    group: list[_Common] = []
    texts = 0
    for pair in common:
        group.append(pair)
        texts += sum(file.rows for file in pair[0].files if file.table == "texts")
        if texts >= _TEXTS_AT_A_TIME or len(group) >= _SHARDS_AT_A_TIME:
            yield group
            group, texts = [], 0
    if group:
        yield group


def _complete(counts: Counter[str]) -> dict[str, int]:
    return {place: counts[place] for place in _PLACES.values()}
