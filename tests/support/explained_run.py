"""A cleaned run whose every web text is wrong, with a hostile text and a broken picture."""

import io
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints import locate
from pipeline.explain.sample import explain
from pipeline.toy.world import ToyWorldConfig, draw, scene, write_toy_world
from shards.run.run import Run
from tests.support.toy_run import clean_world, write_tar

HOSTILE = "a <script>alert(1)</script> \u202eelcric red"


@pytest.fixture(scope="session")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `world`, of the `filter`, and of the `run` over the one by the other."""
    folder = tmp_path_factory.mktemp("explained")
    world = folder / "world"
    write_toy_world(world, ToyWorldConfig(samples=12, noise=1.0, kinds=4, seed=5))
    picture = io.BytesIO()
    draw(scene(random.Random(7), 2, 4)).save(picture, "PNG")
    members = {"h.png": picture.getvalue(), "h.txt": HOSTILE.encode(), "i.png": b"broken"}
    write_tar(world / "hostile.tar", members | {"i.txt": b"x"})
    shutil.copytree(locate.SHIPPED["tiny-filter"], folder / "filter")
    clean_world(world, folder / "run", folder / "filter")
    return folder


@pytest.fixture(scope="session")
def explained_run(explained: Path) -> Run:
    return Run.open(str(explained / "run"))


def sample_of(run: Run, address: str) -> Any:
    """Explain the first sample at SHARD/KEY."""
    return explain(run, address)["samples"][0]
