"""What a view keeps, read by its tables, is what the run's clean tars hold."""

from pathlib import Path

from pipeline.publish.kept import kept_samples, kept_texts, rows_of, texts_of
from shards.run.run import Run
from shards.run.view import open_view
from shards.store import Store
from tests.support.tars import read_members


def test_kept_samples_are_those_of_the_clean_tars(run: Run) -> None:
    expected: dict[str, bytes] = {}
    for url in run.store.read("clean.txt").decode().split():
        members = read_members(url.removeprefix("file://"))
        expected |= {name: data for name, data in members if not name.endswith((".json", ".txt"))}
    kept = list(kept_samples(run, open_view(run), None))
    assert {f"{sample.key}.{sample.extension}": sample.image for sample in kept} == expected
    assert all(row["keep"] for sample in kept for row in sample.texts)


def test_texts_stand_with_their_own_decisions(run: Run) -> None:
    thresholds = open_view(run).thresholds
    for shard in open_view(run).shards:
        texts = dict(texts_of(run, shard))
        for row in (row for rows in texts.values() for row in rows):
            if row["reason"] in ("kept", "itm_below_threshold"):
                assert row["itm"] is not None
                assert row["keep"] == (row["itm"] >= thresholds[row["origin"]])
        assert sum(map(len, texts.values())) == len(rows_of(run, shard, "texts", ["text"]))
        kept = {n: [r for r in rows if r["keep"]] for n, rows in texts.items()}
        assert dict(kept_texts(run, shard)) == {n: rows for n, rows in kept.items() if rows}


def test_a_view_that_keeps_nothing_reads_no_input(tmp_path: Path) -> None:
    run = Run.create(Store(str(tmp_path / "run")), "", {}, {}, [])
    assert list(kept_samples(run, open_view(run), None)) == []
