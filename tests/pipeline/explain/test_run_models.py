"""The models of a run, as its recipe and its identity record them."""

from pathlib import Path

import pytest

from models.checkpoints import checkpoint
from pipeline.explain.run_models import RunModel, run_model
from shards.run.run import Run
from shards.store import Store


def test_a_run_tells_its_models(explained: Path, explained_run: Run) -> None:
    scorer = run_model(explained_run, "filter")
    assert scorer.model == str(explained / "filter")
    assert scorer.digest == checkpoint.info(explained / "filter").digest
    assert (scorer.revision, scorer.max_tokens) == (None, 35)
    assert run_model(explained_run, "captioner").name == "captioner"


@pytest.mark.parametrize("recipe", ["", "[]", "score:", "{", "score: {model: me/filter}"])
def test_what_is_not_recorded_is_empty(tmp_path: Path, recipe: str) -> None:
    run = Run.create(Store(str(tmp_path / "run")), recipe, {}, {}, [])
    model = "me/filter" if "me/filter" in recipe else "filter"
    assert run_model(run, "filter") == RunModel(model, None, "", None)


def test_a_folder_is_named_by_its_last_part() -> None:
    names = [RunModel(model, None, "", None).name for model in ("/a/b/model", "me/filter", "tiny")]
    assert names == ["model", "me/filter", "tiny"]
