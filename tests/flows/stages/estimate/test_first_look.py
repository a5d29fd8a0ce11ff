"""A first look at pictures: what it leaves, and that the recipe it leaves is of the whole."""

from pathlib import Path

import pytest

from flows.recipe import Recipe, read_recipe
from flows.stages import clean
from flows.stages.estimate.first_look import look_at
from flows.stages.estimate.sample import SampleConfig
from flows.stages.first_checks import NotEmpty
from tests.flows.stages.estimate.test_sample import Watch


@pytest.fixture
def recipe(toy_shards: Path, tmp_path: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "input": {"urls": [str(toy_shards)]},
            "output": str(tmp_path / "whole"),
            "caption": {"model": "tiny-captioner"},
            "score": {"model": "tiny-filter"},
            "engine": {"kind": "local", "batch_size": 4},
        }
    )


def test_sample_report_and_recipe(recipe: Recipe, tmp_path: Path) -> None:
    look = look_at(recipe, str(tmp_path / "look"), SampleConfig(40), Watch())
    assert look.plan.ready
    assert look.plan.sample is not None
    assert look.plan.sample.result.statistics["samples_in"] == 40
    page = Path(look.report).read_text(encoding="utf-8")
    assert "data:image" in page  # pictures, so that their tars are still there
    written = read_recipe(Recipe, Path(look.recipe), {})
    assert written == recipe
    assert len(clean.prepare(written).pending) == 12
    with pytest.raises(NotEmpty, match="is not empty"):
        look_at(recipe, str(tmp_path / "look"), SampleConfig(40), Watch())


def test_a_problem_leaves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    broken = recipe.model_copy(
        update={"score": recipe.scorers[0].model_copy(update={"model": "/no"})}
    )
    look = look_at(broken, str(tmp_path / "look"), SampleConfig(40), Watch())
    assert [problem.subject for problem in look.plan.problems] == ["filter"]
    assert not (tmp_path / "look").exists()
