"""The stages of a study: the sets that it trains and measures on."""

from pathlib import Path
from typing import Any

import pytest

from flows.study.recipe import StudyRecipe
from flows.study.stages import Stages
from flows.training.log import silent
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
