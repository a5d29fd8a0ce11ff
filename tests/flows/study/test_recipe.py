"""The recipe of a study: what it must hold, and what the shipped one says of the world."""

from typing import Any

import pytest

from flows.study.recipe import StudyRecipe


def test_the_sections_of_the_trainings_are_asked_for() -> None:
    with pytest.raises(ValueError, match=r"captioner\n.*required"):
        StudyRecipe.model_validate({"pretrain": {}, "filter": {}})


def test_a_key_that_there_is_not_is_refused() -> None:
    sections: dict[str, Any] = {"pretrain": {}, "captioner": {}, "filter": {}}
    assert StudyRecipe.model_validate(sections).world.noise == 0.45
    with pytest.raises(ValueError, match="noises"):
        StudyRecipe.model_validate(sections | {"world": {"noises": 0.1}})
