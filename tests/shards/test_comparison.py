"""Two views side by side, against a loop over their rows."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shards import comparison
from shards.comparison import ViewSide, compare
from shards.run.commit import commit
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard, write_snapshot
from shards.run.view import View, open_view
from tests.shards.conftest import DoWork, MakeRun


def rows(run: Run, shards: tuple[SnapshotShard, ...], table: str) -> list[dict[str, Any]]:
    names = [file.name for shard in shards for file in shard.files if file.table == table]
    return [row for name in names for row in pq.read_table(run.store.open(name)).to_pylist()]


def other_view(run: Run, folder: Path) -> View:
    """Keep every third text, by the run's own decisions files rewritten in place of a view's."""
    from shards.run.view import Judging, Rule, commit_view
    from shards.writer import TableFile, publish_file

    own, judging, judged = open_view(run), Judging("third"), []
    assert own.snapshot is not None
    for number, shard in enumerate(own.shards):
        file = TableFile(folder / f"{number}-{judging.id}", "decisions")
        decisions = rows(run, (shard,), "decisions")
        for place, row in enumerate(decisions):
            row["keep"] = place % 3 == 0
            row["reason"] = "kept" if row["keep"] else "itm_below_threshold"
        file.add(decisions)
        record = publish_file(
            run.store, file, "decisions", judging.file_name("decisions", shard.shard)
        )
        kept = len({row["index"] for row in decisions if row["keep"]})
        ok = shard.counts.kept + shard.counts.filtered
        counts = shard.counts.model_copy(update={"kept": kept, "filtered": ok - kept})
        facts = tuple(f for f in shard.files if f.table in ("samples", "texts"))
        judged.append(
            SnapshotShard(shard.shard, shard.attempt, shard.state, counts, (*facts, record))
        )
    rules = {"web": Rule(threshold=0), "synthetic": Rule(threshold=0)}
    assert commit_view(run, judging, own.snapshot, rules, judged, False)
    return open_view(run, "third")


PLACES = {
    (True, True): "both",
    (True, False): "only_here",
    (False, True): "only_there",
    (False, False): "neither",
}


def by_hand(
    here: ViewSide, there: ViewSide, web_only: bool
) -> tuple[Counter[str], dict[str, Counter[str]]]:
    """Look at every text and every sample in turn."""
    decided = []
    for side in (here, there):
        found = rows(side.run, side.view.shards, "decisions")
        decided.append({(r["shard"], r["index"], r["text_no"]): r["keep"] for r in found})
    texts: dict[str, Counter[str]] = {}
    for row in rows(here.run, here.view.shards, "texts"):
        key = (row["shard"], row["index"], row["text_no"])
        if key in decided[1] and not (web_only and row["text_no"]):
            place = PLACES[decided[0][key], decided[1][key]]
            texts.setdefault(row["origin"], Counter())[place] += 1
    theirs = {(r["shard"], r["index"]) for r in rows(there.run, there.view.shards, "samples")}
    samples: Counter[str] = Counter()
    for row in rows(here.run, here.view.shards, "samples"):
        if (row["shard"], row["index"]) in theirs:
            kept_here, kept_there = (
                any(keep for key, keep in side.items() if key[:2] == (row["shard"], row["index"]))
                for side in decided
            )
            samples[PLACES[kept_here, kept_there]] += 1
    return samples, texts


@pytest.mark.parametrize(
    "limits",
    [{"_TEXTS_AT_A_TIME": 1}, {"_SHARDS_AT_A_TIME": 1}, {}],
    ids=["texts", "shards", "together"],
)
def test_views_of_one_run(
    any_url: str,
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, int],
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(comparison, name, value)
    run = make_run(any_url)
    write_snapshot(run)
    third, own = ViewSide(run, other_view(run, tmp_path)), ViewSide(run, open_view(run))
    for here, there in itertools.permutations([third, own]):
        found = compare(here, there)
        assert json.loads(json.dumps(found)) == found
        samples, texts = by_hand(here, there, web_only=False)
        joined = found["joined"]
        assert Counter(joined["samples"]) == samples
        assert {o: +Counter(places) for o, places in joined["texts"].items()} == texts
        assert (joined["texts_of"], joined["different_images"]) == ("all origins", 0)
        kept = [sum(s.counts.kept for s in side.view.shards) for side in (here, there)]
        assert found["samples"]["kept"] == {
            "here": kept[0],
            "there": kept[1],
            "difference": kept[0] - kept[1],
        }
        assert joined["samples"]["both"] + joined["samples"]["only_here"] == kept[0]
        assert found["shards_in_common"] == 3
    assert compare(third, own)["here"]["view"] == "third"
    assert compare(third, own)["there"]["view"] == "own"


def test_two_runs_share_samples_and_web_texts(
    make_run: MakeRun, do_work: DoWork, tmp_path: Path
) -> None:
    one = make_run(str(tmp_path / "one"))
    write_snapshot(one)
    two = make_run(str(tmp_path / "two"), committed=False)
    for shard in two.shards[:2]:
        assert commit(two, do_work(two, shard))
    write_snapshot(two, allow_partial=True)
    here, there = ViewSide(one, other_view(one, tmp_path)), ViewSide(two, open_view(two))
    found = compare(here, there)
    samples, texts = by_hand(here, there, web_only=True)
    assert texts.keys() == {"web"}
    assert Counter(found["joined"]["samples"]) == samples
    assert {o: +Counter(p) for o, p in found["joined"]["texts"].items()} == texts
    assert (found["shards_in_common"], found["joined"]["texts_of"]) == (2, "web texts")


def test_other_images_are_not_compared(make_run: MakeRun, tmp_path: Path) -> None:
    one, two = (make_run(str(tmp_path / name), shards=1) for name in ("one", "two"))
    sides = []
    for number, run in enumerate((one, two)):
        snapshot = write_snapshot(run)
        file = next(f for f in snapshot.shards[0].files if f.table == "samples")
        table = pq.read_table(run.store.open(file.name))
        hashes = [f"{number if index < 2 else 0}-{index}" for index in range(len(table))]
        place = table.schema.get_field_index("sha256")
        table = table.set_column(place, table.schema.field("sha256"), [hashes])
        pq.write_table(table, run.store.path(file.name))
        sides.append(ViewSide(run, open_view(run)))
    found = compare(*sides)["joined"]
    assert found["different_images"] == 2
    assert sum(found["samples"].values()) == len(table) - 2


def test_nothing_in_common(make_run: MakeRun, tmp_path: Path) -> None:
    one = make_run(str(tmp_path / "one"))
    write_snapshot(one)
    own = open_view(one)
    none = View(None, None, {}, ())
    found = compare(ViewSide(one, own), ViewSide(one, none))
    assert found["shards_in_common"] == 0
    assert found["joined"]["samples"] == dict.fromkeys(PLACES.values(), 0)
    assert found["samples"]["kept"]["there"] == 0
