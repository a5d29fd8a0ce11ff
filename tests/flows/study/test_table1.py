"""The study of Table 1, on a world and for steps so few that it learns nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.study.recipe import StudyRecipe
from flows.study.table1 import Study
from shards.run.run import Run
from shards.run.view import open_view
from shards.statistics import run_statistics

RECIPE = Path(__file__).parents[3] / "flows" / "recipes" / "study" / "table1.yaml"


def small() -> StudyRecipe:
    section: dict[str, Any] = yaml.safe_load(RECIPE.read_text())
    section["world"] |= {"web": 36, "human": 24, "held_out": 12}
    for name in ("pretrain", "captioner", "filter"):
        section[name]["step"] |= {"steps": 2}
    return StudyRecipe.model_validate(section)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def study(folder: Path) -> dict[str, Any]:
    return Study(small(), folder, seed=3).run(("none", "captioner only"))


def test_arms_are_measured_on_the_held_out_pairs(study: dict[str, Any], folder: Path) -> None:
    assert set(study["arms"]) == {"none", "captioner only"}
    for arm in study["arms"].values():
        assert arm["retrieval"]["images"] == arm["captions"]["judged"] == 12
        assert 0 <= arm["retrieval"]["itm"]["tr@1"] <= 1
    assert study["tools"]["round 1"]["filter"]["noise_before"] == 0.5
    assert study["tools"]["round 1"]["web"]["true"] == pytest.approx(20 / 36)  # 45% of 36 are wrong
    assert json.loads((folder / "study.json").read_text()) == study


def test_the_arm_of_the_captioner_alone_filters_nothing(
    study: dict[str, Any], folder: Path
) -> None:
    run = Run.open(str(folder / "run-1"))
    statistics = run_statistics(run, open_view(run, "captioner-only"))
    assert study["arms"]
    assert statistics["kept"] == statistics["samples_in"] == 36
    # but for captions that repeat the web's words, or are empty
    assert statistics["texts"]["web"] == {"in": 36, "kept": 36}


def test_every_arm_starts_from_the_same_network_for_the_same_steps(
    study: dict[str, Any], folder: Path
) -> None:
    arms = [
        json.loads((folder / f"pretrain-{arm}" / "training.json").read_text())["identity"]
        for arm in ("none", "captioner-only")
    ]
    assert study["arms"]
    assert arms[0]["model"]["start"] == arms[1]["model"]["start"]
    assert arms[0]["step"] == arms[1]["step"]
    assert arms[0]["data"]["sources"][0] != arms[1]["data"]["sources"][0]
    assert arms[0]["data"]["sources"][1] == arms[1]["data"]["sources"][1]


def test_a_study_that_is_done_is_not_done_again(study: dict[str, Any], folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
    assert len(before) == 4
    assert Study(small(), folder, seed=3).run(("none", "captioner only")) == study
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
