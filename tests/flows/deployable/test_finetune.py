"""The flow of a finetuning."""

import json
from pathlib import Path

import pytest
import yaml

from flows.deployable.finetune import finetune
from tests.support.driving import Models


@pytest.mark.usefixtures("prefect")
def test_a_form_finetunes_a_checkpoint(
    toy_models: Models, training_pairs: Path, tmp_path: Path
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    values = {
        "dtype": "fp32",
        "data": {"sources": [{"shards": [str(training_pairs)]}], "lanes": 6, "shuffle": 8},
        "step": {"epochs": None, "steps": 2, "batch_size": 12},
        "trackers": [],
    }
    recipe.write_text(yaml.safe_dump(values))
    done = finetune(
        task="captioner",
        output=str(out),
        recipe=str(recipe),
        start=str(toy_models.captioner),
        engine="local",
        return_state=True,
    )
    assert (done.name, done.message) == ("Completed", "2 steps, 24 samples")
    assert "captioner" in json.loads((out / "result.json").read_text())["checkpoints"]


@pytest.mark.usefixtures("prefect")
def test_a_start_that_is_not_there_is_said(training_pairs: Path, tmp_path: Path) -> None:
    done = finetune(
        task="filter",
        output=str(tmp_path / "out"),
        start="/no/such/checkpoint",
        engine="local",
        settings={"data.sources": [{"shards": [str(training_pairs)]}]},
        return_state=True,
    )
    assert done.name == "Failed"
    assert "/no/such/checkpoint" in str(done.message)
