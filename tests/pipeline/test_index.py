"""Indices: every picture and text in them once, and never half of one in the place of another."""

import io
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from models import weights
from models.roles.retrieval import Retriever
from pipeline import index as indexing
from pipeline import nearest
from pipeline.index import IndexConfig, IndexFault, Item, build, items_of_tars
from pipeline.search import Index, search_image, search_text
from pipeline.toy_world import ToyWorldConfig, write_toy_world

COUNT = 40
ABOUT = {"model": "tiny-filter", "max_tokens": 35, "sources": [], "view": None}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_toy_world(folder, ToyWorldConfig(samples=COUNT, samples_per_shard=15, noise=0, kinds=4))
    return folder


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    return Retriever.load(weights.SHIPPED["tiny-filter"], dtype="fp32")


@pytest.fixture(scope="module")
def items(world: Path) -> list[Item]:
    return list(items_of_tars([str(world)]))


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, items: list[Item], retriever: Retriever
) -> Path:
    folder = tmp_path_factory.mktemp("index") / "toy"
    build(folder, items, retriever, ABOUT, IndexConfig(batch_size=7, features=True))
    return folder


def pixels(retriever: Retriever, item: Item) -> torch.Tensor:
    with Image.open(io.BytesIO(item.image)) as image:
        return retriever.preprocess.resize(image.convert("RGB"))[None]


def test_pictures_and_texts_are_searched_as_one_by_one(
    place: Path, items: list[Item], retriever: Retriever
) -> None:
    opened = Index(place)
    units = torch.cat([retriever.look(pixels(retriever, item)).unit for item in items])
    for text in ("a red circle", items[3].texts[0][0]):
        cosines = (units @ retriever.read([text]).unit[0]).tolist()
        order = sorted(range(COUNT), key=lambda n: -cosines[n])[:5]
        found = search_text(opened, retriever, text, 5, rerank=0)
        assert [one.cosine for one in found] == pytest.approx([cosines[n] for n in order], abs=1e-5)
        assert [one.key for one in found] == [items[n].key for n in order]
    texts = list(dict.fromkeys(item.texts[0][0] for item in items))
    read = retriever.read(texts).unit
    cosines = (read @ units[7]).tolist()
    with Image.open(io.BytesIO(items[7].image)) as image:
        found = search_image(opened, retriever, image.convert("RGB"), 4, rerank=0)
    order = sorted(range(len(texts)), key=lambda n: -cosines[n])[:4]
    assert [one.text for one in found] == [texts[n] for n in order]


def test_itm_orders_the_best_as_the_retriever_does(
    place: Path, items: list[Item], retriever: Retriever
) -> None:
    opened, text = Index(place), items[11].texts[0][0]
    near = search_text(opened, retriever, text, 6, rerank=0)
    by_key = {item.key: item for item in items}
    images = retriever.look(torch.cat([pixels(retriever, by_key[one.key]) for one in near]))
    scores = retriever.rank(images, retriever.read([text]), 6).to_image[0].tolist()
    order = sorted(range(6), key=lambda n: -scores[n])
    found = search_text(opened, retriever, text, 6, rerank=6)
    assert [one.key for one in found] == [near[n].key for n in order]
    assert [one.score for one in found] == pytest.approx([scores[n] for n in order], abs=1e-4)
    assert found[0].key == items[11].key  # it knows this world
    with Image.open(io.BytesIO(items[11].image)) as image:
        said = search_image(opened, retriever, image.convert("RGB"), 3)
    assert all(one.score is not None for one in said)
    assert text in [one.text for one in said]


def test_alike_pictures_and_alike_texts(
    place: Path, items: list[Item], retriever: Retriever
) -> None:
    opened = Index(place)
    with Image.open(io.BytesIO(items[5].image)) as image:
        found = search_image(opened, retriever, image.convert("RGB"), 2, which="images")
    assert found[0].key == items[5].key
    assert found[0].cosine == pytest.approx(1, abs=1e-4)
    text = items[5].texts[0][0]
    assert search_text(opened, retriever, text.upper(), 1, which="texts")[0].text == text


def test_equal_texts_have_one_vector_and_features_are_all_of_them(
    place: Path, items: list[Item], retriever: Retriever
) -> None:
    table = pq.read_table(next(place.glob("*/features.parquet"))).to_pylist()
    texts = [row["text"] for row in table if row["kind"] == "text"]
    assert texts == list(dict.fromkeys(item.texts[0][0] for item in items))
    images = [row for row in table if row["kind"] == "image"]
    assert [row["key"] for row in images] == [item.key for item in items]
    expected = retriever.look(pixels(retriever, items[9])).unit[0].numpy()
    assert np.array(images[9]["vector"]) == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_used_is_counted_and_the_rest_is_found(
    tmp_path: Path, items: list[Item], retriever: Retriever
) -> None:
    bad = [
        replace(items[0], image=b"no picture"),
        replace(items[0], image=b"", reason="image_missing"),
        Item("shard", b"", (), None, "shard_not_a_tar"),
    ]
    silent = replace(items[1], texts=(("!!!", "web"),))  # nothing is left of it for the model
    record = build(
        tmp_path / "x", [*bad, silent, *items[2:4]], retriever, ABOUT, IndexConfig(batch_size=2)
    )
    assert record["left_out"] == {
        "image_undecodable": 1,
        "image_missing": 1,
        "shard_not_a_tar": 1,
    }
    assert record["images"]["count"] == 3
    assert record["texts"]["count"] == 2
    opened = Index(tmp_path / "x")
    assert {one.key for one in search_text(opened, retriever, "a red ring", 9)} == {
        item.key for item in items[1:4]
    }


def test_a_picture_that_is_gone_keeps_its_place_behind(
    tmp_path: Path, world: Path, retriever: Retriever
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for tar in world.glob("*.tar"):
        (folder / tar.name).write_bytes(tar.read_bytes())
    build(tmp_path / "x", items_of_tars([str(folder)]), retriever, ABOUT, IndexConfig())
    (folder / "00001.tar").unlink()
    (folder / "00002.tar").write_bytes(b"another file")
    found = search_text(Index(tmp_path / "x"), retriever, "a red circle", COUNT, rerank=COUNT)
    assert len({one.key for one in found}) == COUNT
    scored = [one.score is not None for one in found]
    assert scored == sorted(scored, reverse=True)
    assert sum(scored) == 15


@pytest.mark.parametrize("moment", ["spool", "finish", "sync", "rename", "pointer"])
def test_a_build_that_is_killed_leaves_the_old_index_whole(
    tmp_path: Path, items: list[Item], retriever: Retriever, moment: str
) -> None:
    folder = tmp_path / "x"
    build(folder, items[:10], retriever, ABOUT, IndexConfig())
    before = search_text(Index(folder), retriever, "a red circle", 10)
    assert _killed(folder, items, retriever, moment) == -signal.SIGKILL
    assert search_text(Index(folder), retriever, "a red circle", 10) == before
    build(folder, items, retriever, ABOUT, IndexConfig())  # and the next one goes through
    assert Index(folder).record["images"]["count"] == COUNT
    assert not list(folder.glob("unfinished-*"))
    assert sum(path.is_dir() for path in folder.iterdir()) <= 3


def _killed(folder: Path, items: list[Item], retriever: Retriever, moment: str) -> int | None:
    """Build in a child that kills itself at a moment."""
    child = multiprocessing.get_context("fork").Process(
        target=_build_and_die, args=(folder, items, retriever, moment)
    )
    child.start()
    child.join(60)
    return child.exitcode


def _build_and_die(folder: Path, items: list[Item], retriever: Retriever, moment: str) -> None:
    torch.set_num_threads(1)

    def die(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def some() -> Iterator[Item]:
        yield from items[:20]
        die()

    if moment == "finish":
        nearest.write = die
    elif moment == "sync":
        indexing._sync = die
    elif moment == "rename":
        Path.rename = die  # type: ignore[method-assign] - the child alone sees it
    elif moment == "pointer":
        Path.replace = die  # type: ignore[method-assign] - the child alone sees it
    build(folder, some() if moment == "spool" else items, retriever, ABOUT, IndexConfig())


def test_an_older_build_is_there_for_who_reads_it(
    tmp_path: Path, items: list[Item], retriever: Retriever
) -> None:
    folder = tmp_path / "x"
    for count in (3, 4, 5):
        build(folder, items[:count], retriever, ABOUT, IndexConfig())
    assert sum(path.is_dir() for path in folder.iterdir()) == 2


def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, items: list[Item], retriever: Retriever
) -> None:
    (tmp_path / "thesis").mkdir()
    with pytest.raises(IndexFault, match="holds thesis, which belongs to no index"):
        build(tmp_path, items, retriever, ABOUT, IndexConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_nothing_to_index_is_told_and_the_old_index_stays(
    tmp_path: Path, items: list[Item], retriever: Retriever
) -> None:
    folder = tmp_path / "x"
    build(folder, items[:3], retriever, ABOUT, IndexConfig())
    with pytest.raises(IndexFault, match="no picture to index"):
        build(folder, [], retriever, ABOUT, IndexConfig())
    assert Index(folder).record["images"]["count"] == 3


def test_another_model_and_a_broken_index_are_told(
    tmp_path: Path, items: list[Item], retriever: Retriever
) -> None:
    folder = tmp_path / "x"
    with pytest.raises(IndexFault, match="holds no index"):
        Index(folder)
    build(folder, items[:3], retriever, ABOUT | {"model": "other"}, IndexConfig())
    (record,) = folder.glob("*/index.json")
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"model_digest": "0" * 64}))
    with pytest.raises(IndexFault, match="made by the model other"):
        Index(folder).check_model(retriever)
    record.write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(IndexFault, match="version 99"):
        Index(folder)
    record.write_text("{")
    with pytest.raises(IndexFault, match="build the index again"):
        Index(folder)
    record.write_text(json.dumps(content))
    (faiss_file,) = folder.glob("*/images.faiss")
    faiss_file.write_bytes(b"broken")
    with pytest.raises(IndexFault, match="build the index again"):
        Index(folder)
