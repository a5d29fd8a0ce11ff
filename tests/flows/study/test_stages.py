"""The stages of a study: the sets that it trains and measures on."""

from pathlib import Path
from typing import Any

import pytest

from flows.recipe import read_recipe
from flows.study.recipe import StudyRecipe
from flows.study.stages import Stages
from flows.training.log import silent
from flows.training.recipe import PretrainRecipe
from models.checkpoints.conversion import import_folder
from pipeline.evaluate import read_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sections: dict[str, Any] = {"pretrain": {}, "captioner": {}, "filter": {}}
    world = {"web": 30, "human": 8, "held_out": 6, "noise": 0.4}
    recipe = StudyRecipe.model_validate(sections | {"world": world})
    path = tmp_path_factory.mktemp("worlds")
    Stages(recipe, path, 2, silent).write_worlds()
    return path


def test_each_set_has_its_size(folder: Path) -> None:
    sizes = {path.name: len(list(read_pairs([str(path)]))) for path in folder.iterdir()}
    assert sizes == {"web": 30, "human": 8, "held-out": 6, "judged": 12}


def test_people_say_several_things_of_a_picture_and_the_web_one(folder: Path) -> None:
    texts = {
        path.name: [len(p.texts) for p in read_pairs([str(path)])] for path in folder.iterdir()
    }
    assert min(texts["human"]) > 1
    assert min(texts["held-out"]) > 1
    assert set(texts["web"]) == set(texts["judged"]) == {1}


def test_the_networks_section_reaches_the_start_of_all_arms(folder: Path, tmp_path: Path) -> None:
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    model = {"size": "tiny", "image_size": 32, "vision": tower, "text": tower, "dropout": 0}
    section = {
        "dtype": "fp32",
        "model": model | {"position_range": 1.0},
        "data": {"lanes": 2},
        "loss": {"queue": 8},
        "step": {"epochs": None, "steps": 1, "batch_size": 4},
    }
    for name in ("web", "human"):
        (tmp_path / name).symlink_to(folder / name)
    recipe = StudyRecipe.model_validate({"pretrain": section, "captioner": {}, "filter": {}})
    arm = Stages(recipe, tmp_path, 2, silent).pretrain("none", {"shards": [str(folder / "web")]})
    positions = "vision_model.embeddings.position_embedding"
    start = import_folder(tmp_path / "start").content
    assert start.tensors[positions].std().item() == pytest.approx(1.0, rel=0.2)
    assert start.config.vision_config.hidden_size == 32
    # what was written down of the arm is a recipe that a person can type again
    written = read_recipe(PretrainRecipe, arm.parent / "recipe.yaml", {})
    assert (written.model.start, written.model.dropout) == (str(tmp_path / "start"), 0)
