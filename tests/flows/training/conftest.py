"""A recipe of two steps, on pairs of a toy world."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.training.recipe import PretrainRecipe
from pipeline.toy.world import ToyWorldConfig, write_toy_world

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
Make = Callable[..., PretrainRecipe]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_toy_world(folder, ToyWorldConfig(samples=24, samples_per_shard=12, image_px=32))
    return folder


@pytest.fixture
def recipe(pairs: Path, tmp_path: Path) -> Make:
    """Make a recipe of two steps; dotted keys go over it."""

    def make(**change: Any) -> PretrainRecipe:
        values: dict[str, Any] = {
            "output": str(tmp_path / "trained"),
            "dtype": "fp32",
            "data": {"sources": [{"shards": [str(pairs)]}], "lanes": 6, "shuffle": 8},
            "model": {"size": "tiny", "image_size": 16, "words": 100}
            | {"vision": TOWER, "text": TOWER},
            "loss": {"queue": 30},
            "step": {"epochs": None, "steps": 2, "batch_size": 6},
            "save": {"every_steps": 1, "log_every": 1},
            "launch": {"kind": "local"},
            "trackers": [],
        }
        for dotted, value in change.items():
            *sections, key = dotted.split("__")
            target = values
            for section in sections:
                target = target[section]
            target[key] = value
        return PretrainRecipe.model_validate(values)

    return make
