"""A cleaned run that the tests of this folder publish."""

from pathlib import Path

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.run.run import Run
from tests.support.toy_run import clean_world, write_tar


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over toy pictures, some of them JPEG, one of them broken."""
    folder = tmp_path_factory.mktemp("export")
    world = folder / "world"
    config = ToyWorldConfig(samples=24, samples_per_shard=12, noise=0.5, kinds=4)
    write_toy_world(world, config)
    write_toy_world(world / "more", config.model_copy(update={"image_format": "jpeg", "seed": 1}))
    write_tar(world / "bad.tar", {"b.png": b"no picture", "b.txt": b"a red ring"})
    clean_world(world, folder / "run")
    return folder


@pytest.fixture(scope="session")
def run(place: Path) -> Run:
    return Run.open(str(place / "run"))
