"""A cleaned run that the tests of this folder publish."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints import weights
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.run.run import Run


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over toy pictures, some of them JPEG, one of them broken."""
    folder = tmp_path_factory.mktemp("export")
    world = folder / "world"
    config = ToyWorldConfig(samples=24, samples_per_shard=12, noise=0.5, kinds=4)
    write_toy_world(world, config)
    write_toy_world(world / "more", config.model_copy(update={"image_format": "jpeg", "seed": 1}))
    with tarfile.open(world / "bad.tar", "w") as tar:
        for name, data in (("b.png", b"no picture"), ("b.txt", b"a red ring")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    _clean(world, folder / "run")
    return folder


def _clean(world: Path, output: Path, **write: str) -> None:
    from flows.recipe import Recipe
    from flows.stages import clean

    recipe = Recipe.model_validate(
        {
            "input": {"urls": [str(world)]},
            "output": str(output),
            "dtype": "fp32",
            "caption": {"model": str(weights.SHIPPED["tiny-captioner"])},
            "score": {"model": str(weights.SHIPPED["tiny-filter"])},
            "write": write,
            "engine": {"kind": "local"},
        }
    )
    job = clean.prepare(recipe)
    clean.finish(job, clean.clean_shards(job, _Silent()))


class _Silent:
    def begin(self, *_: Any) -> None: ...
    def under_way(self, *_: Any) -> None: ...
    def ended(self, *_: Any) -> None: ...


@pytest.fixture(scope="session")
def run(place: Path) -> Run:
    return Run.open(str(place / "run"))


@pytest.fixture(scope="session")
def clean() -> Callable[..., None]:
    """Clean a world into a run."""
    return _clean
