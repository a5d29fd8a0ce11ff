"""Scores from outside: every way to name a text, and one message for all that does not fit."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.views import import_scores as importing
from pipeline.views.import_scores import import_scores
from shards.errors import DamagedFile, UsageError
from shards.query.query import connect
from shards.run.commit import read_commits
from shards.run.run import Run
from shards.run.scoring.score_set import (
    ScoresError,
    open_score_set,
    score_set_names,
    with_scores,
)
from shards.run.snapshot import open_snapshot
from shards.writer import commit_scores
from tests.pipeline.views.test_rejudge import made_run

KEYS = ["shard", "index", "text_no", "key", "text"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_run(str(tmp_path / "run"), shards=3, samples=20)


def texts_of(run: Run) -> list[dict[str, Any]]:
    sql = f"SELECT {', '.join(KEYS)} FROM texts JOIN samples USING (shard, index) ORDER BY ALL"
    with connect(run, open_snapshot(run).shards) as connection:
        return [dict(zip(KEYS, row, strict=True)) for row in connection.execute(sql).fetchall()]


def scored(run: Run) -> dict[tuple[Any, ...], float]:
    """Read all scores back, by SQL."""
    with connect(run, with_scores(run, open_snapshot(run).shards), ["scores"]) as connection:
        rows = connection.execute("FROM scores").fetchall()
    return {tuple(row[:-1]): row[-1] for row in rows}


def table_of(rows: list[dict[str, Any]], keys: list[str], **scores: list[Any]) -> pa.Table:
    return pa.table({key: [row[key] for row in rows] for key in keys} | scores)


@pytest.mark.parametrize(
    "keys", [["shard", "index", "text_no"], ["shard", "key", "text_no"], ["shard", "key", "text"]]
)
def test_each_way_to_name_a_text(run: Run, tmp_path: Path, keys: list[str]) -> None:
    rows = {tuple(row[key] for key in keys): row for row in reversed(texts_of(run))}
    numbers = {key: float(number % 7) / 8 for number, key in enumerate(rows)}
    pq.write_table(
        table_of(list(rows.values()), keys, prob=list(numbers.values())),
        tmp_path / "my clip.parquet",
    )
    imported = import_scores(run, str(tmp_path / "my clip.parquet"))
    expected = {
        (row["shard"], row["index"], row["text_no"], "my_clip", "prob"): numbers[
            tuple(row[key] for key in keys)
        ]
        for row in texts_of(run)  # the same text twice in a sample is the same pair
    }
    assert scored(run) == expected
    assert (imported.scores.qualified, imported.new) == (("my_clip.prob",), True)
    assert imported.texts == imported.of_texts == len(expected)
    assert not import_scores(run, str(tmp_path / "my clip.parquet")).new
    assert read_commits(open_score_set(run, "my_clip").record).keys() == set(run.shards)


def test_long_tables_and_several_scores(run: Run, tmp_path: Path) -> None:
    rows = texts_of(run)[:4]
    place = ["shard", "index", "text_no"]
    long = table_of(rows, place, name=["a", "a", "b", "b"], value=[0.5, None, 0.25, 1.0])
    pq.write_table(long, tmp_path / "long.parquet")
    imported = import_scores(run, str(tmp_path / "long.parquet"), "other")
    assert imported.scores.qualified == ("other.a", "other.b")
    assert sorted(scored(run).values()) == [0.25, 0.5, 1.0]  # null is no score
    assert (imported.texts, imported.of_texts) == (3, len(texts_of(run)))


def test_what_is_not_finite_is_told_and_kept(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = texts_of(run)[:3]
    table = table_of(rows, ["shard", "index", "text_no"], p=[float("nan"), 0.5, 1e300])
    pq.write_table(table, tmp_path / "x.parquet")
    with caplog.at_level(logging.WARNING):
        assert import_scores(run, str(tmp_path / "x.parquet")).not_finite == 2
    assert len(caplog.messages) == 1
    assert "2 scores are not finite; the first: shard 's0', index" in caplog.text
    assert len(scored(run)) == 3


STRANGE = {"shard": "s0", "index": 999, "text_no": 0, "key": "none", "text": "nothing"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": ["text_no", "text"]}, "names no texts: expected the columns shard, index"),
        ({"drop": ["p"]}, "no column of numbers beside its keys"),
        ({"cast": ("p", pa.string())}, r"no column of numbers beside its keys; found p \(string\)"),
        (
            {"cast": ("index", pa.string())},
            "column 'index' should hold whole numbers, found string",
        ),
        (
            {"add": [STRANGE]},
            "1 score of texts that the run does not have; the first: shard 's0', ",
        ),
        ({"add": [STRANGE | {"shard": None}]}, "1 score of texts that the run does not have"),
        ({"twice": True}, "texts with more than one score of a name; the first: shard 's0'"),
        ({"empty": True}, "has no scores"),
        ({"name": "it-m"}, "cannot name a set of scores"),
        ({"name": "itm"}, "is a column of the run's own tables"),
        ({"score": "a b"}, "'a b' cannot name a score of x"),
    ],
)
def test_one_message_for_all_that_does_not_fit(
    run: Run, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    rows = texts_of(run)[: change.get("rows")] + change.get("add", [])
    rows += rows if change.get("twice") else []
    score = change.get("score", "p")
    keys = [key for key in KEYS if key not in change.get("drop", [])]
    table = table_of(rows, keys, **{score: [0.5] * len(rows)})
    if "p" in change.get("drop", []):
        table = table.drop_columns(["p"])
    if "cast" in change:
        column, kind = change["cast"]
        table = table.set_column(table.column_names.index(column), column, table[column].cast(kind))
    table = table.slice(0, 0) if change.get("empty") else table
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ScoresError, match=message):
        import_scores(run, str(tmp_path / "x.parquet"), change.get("name", "x"))
    assert score_set_names(run) == []


def test_a_key_in_several_shards_needs_the_shard(run: Run, tmp_path: Path) -> None:
    rows = [row for row in texts_of(run) if row["text"] == "a cat"]
    key = next(
        row["key"] for row in rows if len({r["shard"] for r in rows if r["key"] == row["key"]}) > 1
    )
    pq.write_table(pa.table({"key": [key], "text": ["a cat"], "p": [0.5]}), tmp_path / "x.parquet")
    with pytest.raises(ScoresError, match=f"the first: key '{key}', in shards s. and s.. Add the"):
        import_scores(run, str(tmp_path / "x.parquet"))


@pytest.mark.parametrize("content", [None, b"", b"PAR1 no more PAR1"])
def test_what_is_no_parquet_file(run: Run, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(UsageError, match="Parquet file"):
        import_scores(run, str(tmp_path / "x.parquet"))


def test_a_broken_import_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = texts_of(run)
    pq.write_table(
        table_of(rows, ["shard", "index", "text_no"], p=[0.5] * len(rows)), tmp_path / "x.parquet"
    )
    real, calls = commit_scores, []

    def second_fails(*arguments: Any) -> bool:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("the disk is full")
        return real(*arguments)

    monkeypatch.setattr(importing, "commit_scores", second_fails)
    with pytest.raises(OSError, match="full"):
        import_scores(run, str(tmp_path / "x.parquet"))
    record = open_score_set(run, "x").record
    assert list(read_commits(record)) == ["s0"]
    assert import_scores(run, str(tmp_path / "x.parquet")).new
    assert list(read_commits(record)) == run.shards
    assert len(scored(run)) == len(rows)
    assert len(record.store.list("data")) == 3  # each once


def test_another_file_under_the_name_is_refused(run: Run, tmp_path: Path) -> None:
    row = texts_of(run)[:1]
    for value in (0.25, 0.5):
        table = table_of(row, ["shard", "index", "text_no"], p=[value])
        pq.write_table(table, tmp_path / f"{value}.parquet")
    import_scores(run, str(tmp_path / "0.25.parquet"), "x")
    with pytest.raises(ScoresError, match=r"scorer\.sha256: .* Choose another name"):
        import_scores(run, str(tmp_path / "0.5.parquet"), "x")


@pytest.mark.parametrize("whose", ["run", "file"])
def test_a_damaged_file_is_named_for_what_it_is(run: Run, tmp_path: Path, whose: str) -> None:
    rows = texts_of(run)
    path = tmp_path / "x.parquet"
    table = table_of(rows, ["shard", "index", "text_no"], p=[n / 7 for n in range(len(rows))])
    pq.write_table(table, path, write_page_checksum=True)
    texts = next(name for name in run.store.list("data/texts") if "s1-" in name)
    broken = path if whose == "file" else Path(run.store.path(texts))
    data = bytearray(broken.read_bytes())
    data[40] ^= 0xFF
    broken.write_bytes(data)
    error = DamagedFile if whose == "run" else UsageError
    with pytest.raises(error, match=str(broken)):
        import_scores(run, str(path))
    assert score_set_names(run) == []
