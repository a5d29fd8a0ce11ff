"""A prepared run over toy shards, for the engines to work on."""

from pathlib import Path

import pytest

from flows.recipe import Recipe
from flows.stages import clean
from flows.stages.clean import CleanJob
from pipeline.toy.world import ToyWorldConfig, write_toy_world


@pytest.fixture
def job(tmp_path: Path) -> CleanJob:
    """Three shards of four toy pictures."""
    write_toy_world(tmp_path / "web", ToyWorldConfig(samples=12, samples_per_shard=4))
    recipe = {
        "input": {"urls": [str(tmp_path / "web")]},
        "output": str(tmp_path / "run"),
        "dtype": "fp32",
        "caption": {"model": "tiny-captioner"},
        "score": {"model": "tiny-filter"},
        "engine": {"kind": "local", "batch_size": 2},
    }
    return clean.prepare(Recipe.model_validate(recipe))
