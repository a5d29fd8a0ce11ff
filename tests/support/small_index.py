"""A toy world, the shipped filter that knows it, and an index of it."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.checkpoints import locate
from models.roles.retrieval import Retriever
from pipeline.search.build import IndexConfig, IndexItem, build, items_of_tars
from pipeline.toy.world import ToyWorldConfig, write_toy_world

COUNT = 40
ABOUT: dict[str, Any] = {"model": "tiny-filter", "max_tokens": 35, "sources": [], "view": None}


@pytest.fixture(scope="session")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tars of pictures that are all described rightly."""
    folder = tmp_path_factory.mktemp("pictured")
    write_toy_world(folder, ToyWorldConfig(samples=COUNT, samples_per_shard=15, noise=0, kinds=4))
    return folder


@pytest.fixture(scope="session")
def retriever() -> Retriever:
    return Retriever.load(locate.SHIPPED["tiny-filter"], dtype="fp32")


@pytest.fixture(scope="session")
def items(pictured: Path) -> list[IndexItem]:
    return list(items_of_tars([str(pictured)]))


@pytest.fixture(scope="session")
def toy_index(
    tmp_path_factory: pytest.TempPathFactory, items: list[IndexItem], retriever: Retriever
) -> Path:
    folder = tmp_path_factory.mktemp("index") / "toy"
    build(folder, items, retriever, ABOUT, IndexConfig(batch_size=7, features=True))
    return folder


def picture(item: IndexItem) -> Image.Image:
    with Image.open(io.BytesIO(item.image)) as image:
        return image.convert("RGB")


def unit(retriever: Retriever, item: IndexItem) -> torch.Tensor:
    """Embed one picture by itself: (1, E)."""
    return retriever.encode_images(retriever.preprocess.resize(picture(item))[None]).unit
