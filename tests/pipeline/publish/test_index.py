"""The index of a set: a row for each kept picture, all its texts, and no pixel."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from pipeline.publish.sets import ExportConfig, export
from pipeline.views.dedup.listed import find_listed
from pipeline.views.exclude import ExclusionRequest, exclude
from shards.run.run import Run
from shards.run.view import open_view
from shards.statistics import run_statistics

Rows = list[dict[str, Any]]


def listed(
    run: Run, to: Path, view: str | None = None, **config: Any
) -> tuple[dict[str, Any], Rows, Rows]:
    """Export an index; return its record, the rows of the set, and of what is dropped."""
    record = export(run, to, ExportConfig(form="index", **config), view)
    train, dropped = (
        [
            row
            for file in sorted((to / "data").glob(name))
            for row in pq.read_table(file).to_pylist()
        ]
        for name in ("train-*", "dropped-*")
    )
    return record, train, dropped


def stored(place: Path, table: str) -> Rows:
    """Read a table of the run out of its files."""
    return pq.read_table(place / "run" / "data" / table).to_pylist()


def place_of(row: dict[str, Any]) -> tuple[str, str]:
    return row["shard"], row["key"]


@pytest.fixture(scope="module")
def pictures(place: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """All samples of the run with their texts and decisions, as its tables have them."""
    samples = {
        (row["shard"], row["index"]): row | {"texts": []} for row in stored(place, "samples")
    }
    for text, decision in zip(stored(place, "texts"), stored(place, "decisions"), strict=True):
        assert (text["index"], text["text_no"]) == (decision["index"], decision["text_no"])
        samples[text["shard"], text["index"]]["texts"].append(text | decision)
    return {place_of(row): row for row in samples.values()}


def test_each_kept_picture_has_a_row_with_its_hashes_and_all_its_texts(
    run: Run, pictures: dict[tuple[str, str], dict[str, Any]], tmp_path: Path
) -> None:
    record, rows, dropped = listed(run, tmp_path / "out")
    kept = {at: row for at, row in pictures.items() if any(text["keep"] for text in row["texts"])}
    assert {place_of(row) for row in rows} == kept.keys()
    assert record["rows"] == len(rows) == len(kept) == run_statistics(run)["kept"]
    for row in rows:
        facts = kept[place_of(row)]
        for name in ("url", "sha256", "width", "height"):
            assert row[name] == facts[name]
        assert bytes.fromhex(row["dhash"]) == facts["phash"]
        columns = ("text", "origin", "itm", "itc", "keep", "reason")
        assert row["texts"] == [{c: text[c] for c in columns} for text in facts["texts"]]
        assert row["keep"] is True
        assert row["text"] in [text["text"] for text in facts["texts"] if text["keep"]]
    assert any(not text["keep"] for row in rows for text in row["texts"])
    assert dropped == []
    size = sum(path.stat().st_size for path in (tmp_path / "out" / "data").iterdir())
    assert size < 60_000


def test_datasets_reads_the_set_and_not_what_is_dropped(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    _, rows, dropped = listed(run, tmp_path / "out", dropped=True)
    assert dropped
    loaded = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "c"))
    assert [(row["key"], row["texts"][0]["text"]) for row in loaded] == [
        (row["key"], row["texts"][0]["text"]) for row in rows
    ]


def test_pictures_without_a_url_are_counted(run: Run, tmp_path: Path) -> None:
    record, rows, _ = listed(run, tmp_path / "out")
    assert record["without_url"] == len(rows)  # toy sidecars have none
    assert f"{len(rows)} have no `url`" in (tmp_path / "out" / "README.md").read_text()


def test_what_is_dropped_stands_apart_if_it_is_wanted(
    run: Run, pictures: dict[tuple[str, str], dict[str, Any]], tmp_path: Path
) -> None:
    record, rows, dropped = listed(run, tmp_path / "out", dropped=True)
    assert {place_of(row) for row in [*rows, *dropped]} == pictures.keys()
    assert (record["rows"], record["dropped"]) == (len(rows), len(dropped))
    assert not any(row["keep"] for row in dropped)
    (rejected,) = [row for row in dropped if row["reason"]]
    assert (rejected["reason"], rejected["texts"]) == ("image_undecodable", [])
    assert {row["text"] for row in dropped} == {None}


def test_what_somebody_wants_gone_is_listed_nowhere(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    run = Run.open(str(tmp_path / "run"))
    _, before, _ = listed(run, tmp_path / "before")
    gone = place_of(before[0])
    (tmp_path / "withdrawn.txt").write_text("/".join(gone))
    base = open_view(run)
    groups, _ = find_listed(run, base, str(tmp_path / "withdrawn.txt"))
    exclude(run, base, ExclusionRequest("less", {"list": "x"}), groups, lambda _: None)
    _, rows, dropped = listed(run, tmp_path / "after", "less", dropped=True)
    assert [place_of(row) for row in rows] == [place_of(row) for row in before[1:]]
    assert gone not in {place_of(row) for row in dropped}


def test_the_one_text_follows_the_policy(run: Run, tmp_path: Path) -> None:
    _, rows, _ = listed(run, tmp_path / "out", text_policy="best")
    for row in rows:
        best = max((text for text in row["texts"] if text["keep"]), key=lambda text: text["itm"])
        assert row["text"] == best["text"]
