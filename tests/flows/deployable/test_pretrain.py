"""The flow of a pre-training."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.deployable.pretrain import pretrain


@pytest.mark.usefixtures("prefect")
def test_a_form_trains_on_what_a_recipe_says(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe, out = write_recipe(), tmp_path / "by-form"
    asked = {"output": str(out), "recipe": str(recipe), "engine": "local"}
    done = pretrain(**asked, settings={"step.steps": 4}, return_state=True)
    assert (done.name, done.message) == ("Completed", "4 steps, 48 samples")
    assert json.loads((out / "result.json").read_text())["steps"] == 4
    other = pretrain(**asked, return_state=True)  # twelve steps, in the folder of four
    assert other.name == "Failed"
    assert "step.steps" in str(other.message)


@pytest.mark.usefixtures("prefect")
def test_runs_go_over_the_sources_of_a_recipe(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    asked = {"output": str(tmp_path / "out"), "recipe": str(write_recipe()), "engine": "local"}
    gone = pretrain(**asked, runs=["/no/such/run"], return_state=True)
    assert gone.name == "Failed"
    assert "/no/such/run" in str(gone.message)
