"""A run that is decided about again: the view, beside what the run had decided."""

import shutil
from pathlib import Path

import duckdb
import pytest

from flows.stages.judge import judge
from pipeline.views.request import ViewRequest
from shards.run.run import Run
from shards.run.snapshot import open_snapshot


@pytest.fixture
def run(toy_run: Path, tmp_path: Path) -> Run:
    return Run.open(str(shutil.copytree(toy_run, tmp_path / "run")))


def test_a_view_stands_beside_the_runs_own_decisions(run: Run, toy_run: Path) -> None:
    heard: list[int] = []
    request = ViewRequest("strict", {"web": 0.9}, {"synthetic": 0.25}, False)
    judged = judge(run, open_snapshot(run, None), request, heard.append)
    assert (judged["run"], judged["view"], judged["new"]) == (run.store.url(), "strict", True)
    assert judged["snapshot"] == open_snapshot(run, None).id
    web, synthetic = judged["rules"]["web"], judged["rules"]["synthetic"]
    assert web == {"threshold": 0.9, "own_threshold": 0.5, "keep_fraction": None}
    assert synthetic["keep_fraction"] == 0.25
    texts = f"read_parquet('{toy_run}/data/texts/*.parquet')"
    asked = f"SELECT count(*) FROM {texts} WHERE origin = 'synthetic' AND itm >= ?"
    ((kept,),) = duckdb.execute(asked, [synthetic["threshold"]]).fetchall()
    ((most,),) = duckdb.execute(asked, [0.0]).fetchall()
    assert kept == pytest.approx(most / 4, abs=1)  # the best quarter
    assert sum(heard) == 300
    again = judge(run, open_snapshot(run, None), request, heard.append)
    assert again == judged | {"new": False}
