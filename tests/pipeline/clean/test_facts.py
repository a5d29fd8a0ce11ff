"""The facts that a view is judged by, against a join in SQL."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.clean.facts import read_facts
from pipeline.views.import_scores import import_scores
from shards.query.query import connect
from shards.run.run import Run
from shards.run.scoring.expression import SAMPLE_COLUMNS, TEXT_COLUMNS, score_columns
from shards.run.scoring.score_set import with_scores
from shards.run.snapshot import open_snapshot

JOINED = """
SELECT origin, itm, text_no, len(text) AS text_chars, width, format, key,
  width::BIGINT * height AS pixels, greatest(width, height) / least(width, height) AS aspect,
  len(regexp_extract_all(text, '[^ ]+')) AS text_words, p AS "clip.p"
FROM texts JOIN samples USING (shard, index) LEFT JOIN
  (SELECT shard, index, text_no, value AS p FROM scores WHERE name = 'p')
  USING (shard, index, text_no)
WHERE shard = ? ORDER BY index, text_no
"""


@pytest.fixture
def run(toy_run: Path, tmp_path: Path) -> Run:
    """The toy run with scores of every third text, and another set beside them."""
    run = Run.open(str(shutil.copytree(toy_run, tmp_path / "run")))
    with connect(run, open_snapshot(run).shards) as connection:
        asked = "SELECT shard, index, text_no, random() AS p, random() AS q FROM texts"
        rows = connection.sql(asked).to_arrow_table()
    scored = rows.take(pa.array(range(0, len(rows), 3)))
    pq.write_table(scored, tmp_path / "clip.parquet")
    pq.write_table(rows, tmp_path / "other.parquet")
    for name in ("clip", "other"):
        import_scores(run, str(tmp_path / f"{name}.parquet"))
    return run


def test_they_are_what_sql_joins(run: Run) -> None:
    columns = {**TEXT_COLUMNS, **SAMPLE_COLUMNS, **score_columns({"clip": ("p", "q")})}
    names = ["itm", "text_no", "text_chars", "width", "format", "key", "pixels", "aspect"]
    names += ["text_words", "clip.p"]
    shards = with_scores(run, open_snapshot(run).shards, ["clip"])
    for shard in shards:
        facts = read_facts(run, shard, [columns[name] for name in names])
        with connect(run, [shard], ["samples", "texts", "scores"]) as connection:
            expected = connection.sql(JOINED, params=[shard.shard]).to_arrow_table()
        assert facts.to_pylist() == expected.select(facts.column_names).to_pylist()
        assert 0 < facts["clip.p"].null_count < len(facts)
