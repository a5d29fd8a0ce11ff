"""The network of a pre-training: what a start has of its own, nothing changes."""

import pytest

from pipeline.train.pretrain_config import ModelConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position_range", 1.0),
        ("size", "large"),
        ("image_size", 384),
        ("words", 90),
        ("vision", {"hidden_size": 8}),
        ("text", {"hidden_size": 8}),
    ],
)
def test_what_a_start_has_of_its_own_is_refused_beside_it(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{name} beside start: .*Leave out model\.{name}, or"):
        ModelConfig.model_validate({"start": "runs/first", name: value})


def test_a_recipe_that_names_every_default_may_have_a_start() -> None:
    every = ModelConfig(dropout=0.3).model_dump() | {"start": "runs/first", "image_size": None}
    assert ModelConfig.model_validate(every).start == "runs/first"


def test_going_on_keeps_how_towers_are_trained_alone() -> None:
    wide = ModelConfig(size="tiny", position_range=1.0, words=90, dropout=0.3, drop_path=0.2)
    assert wide.going_on("runs/first") == ModelConfig(
        start="runs/first", dropout=0.3, drop_path=0.2
    )
