"""Search, both ways and among alike ones, against one comparison after the other."""

import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.roles.retrieval import Retriever
from pipeline.search import query as searching
from pipeline.search.build import IndexConfig, IndexItem, build, items_of_tars
from pipeline.search.index_folder import IndexFolderError
from pipeline.search.query import SearchHit, SearchIndex, read_hit_image, search_image, search_text
from tests.support.small_index import ABOUT, COUNT, picture, unit


def test_pictures_are_found_as_one_by_one(
    toy_index: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    opened = SearchIndex(toy_index)
    units = torch.cat([unit(retriever, item) for item in items])
    for text in ("a red circle", items[3].texts[0][0]):
        cosines = (units @ retriever.encode_texts([text]).unit[0]).tolist()
        order = sorted(range(COUNT), key=lambda n: -cosines[n])[:5]
        found = search_text(opened, retriever, text, 5, rerank=0)
        assert [one.cosine for one in found] == pytest.approx([cosines[n] for n in order], abs=1e-5)
        assert [one.key for one in found] == [items[n].key for n in order]
        assert {one.score for one in found} == {None}


def test_texts_are_found_as_one_by_one(
    toy_index: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    opened = SearchIndex(toy_index)
    texts = list(dict.fromkeys(item.texts[0][0] for item in items))
    cosines = (retriever.encode_texts(texts).unit @ unit(retriever, items[7])[0]).tolist()
    order = sorted(range(len(texts)), key=lambda n: -cosines[n])[:4]
    found = search_image(opened, retriever, picture(items[7]), 4, rerank=0)
    assert [one.text for one in found] == [texts[n] for n in order]
    assert [one.cosine for one in found] == pytest.approx([cosines[n] for n in order], abs=1e-5)


@pytest.mark.parametrize("at_once", [32, 4])
def test_itm_orders_the_best_pictures_as_the_retriever_does(
    toy_index: Path,
    items: list[IndexItem],
    retriever: Retriever,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    monkeypatch.setattr(searching, "_AT_ONCE", at_once)
    opened, text = SearchIndex(toy_index), items[11].texts[0][0]
    near = search_text(opened, retriever, text, 9, rerank=0)
    by_key = {item.key: item for item in items}
    resize = retriever.preprocess.resize
    images = retriever.encode_images(
        torch.stack([resize(picture(by_key[one.key])) for one in near[:6]])
    )
    scores = retriever.rank(images, retriever.encode_texts([text]), 6).to_image[0].tolist()
    order = sorted(range(6), key=lambda n: -scores[n])
    found = search_text(opened, retriever, text, 9, rerank=6)
    assert [one.key for one in found[:6]] == [near[n].key for n in order]
    assert [one.score for one in found[:6]] == pytest.approx([scores[n] for n in order], abs=1e-4)
    assert found[6:] == near[6:]  # what ITM did not see keeps the order of ITC
    assert order != list(range(6))
    assert found[0].key == items[11].key  # it knows this world


def test_itm_orders_the_best_texts_as_the_retriever_does(
    toy_index: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    opened = SearchIndex(toy_index)
    near = search_image(opened, retriever, picture(items[11]), 7, rerank=0)
    images = retriever.encode_images(retriever.preprocess.resize(picture(items[11]))[None])
    texts = retriever.encode_texts([str(one.text) for one in near[:5]])
    scores = retriever.rank(images, texts, 5).to_text[0].tolist()
    order = sorted(range(5), key=lambda n: -scores[n])
    found = search_image(opened, retriever, picture(items[11]), 7, rerank=5)
    assert [one.text for one in found] == [near[n].text for n in (*order, 5, 6)]
    assert [one.score for one in found[:5]] == pytest.approx([scores[n] for n in order], abs=1e-4)
    assert items[11].texts[0][0] in [one.text for one in found]


def test_itm_sees_more_than_are_shown(
    toy_index: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    opened, text = SearchIndex(toy_index), items[11].texts[0][0]
    found = search_text(opened, retriever, text, COUNT, rerank=COUNT)
    assert search_text(opened, retriever, text, 2, rerank=COUNT) == found[:2]


def test_alike_pictures_and_alike_texts(
    toy_index: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    opened = SearchIndex(toy_index)
    found = search_image(opened, retriever, picture(items[5]), 2, which="images")
    assert found[0].key == items[5].key
    assert found[0].cosine == pytest.approx(1, abs=1e-4)
    text = items[5].texts[0][0]
    assert search_text(opened, retriever, text.upper(), 1, which="texts")[0].text == text


def test_pictures_that_are_gone_or_others_keep_their_order_behind(
    tmp_path: Path, pictured: Path, retriever: Retriever
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    tars = sorted(pictured.glob("*.tar"))
    for tar in tars:
        (folder / tar.name).write_bytes(tar.read_bytes())
    build(tmp_path / "x", items_of_tars([str(folder)]), retriever, ABOUT, IndexConfig())
    # the second is gone, the third holds pictures, whole ones, that are not those of before
    (folder / tars[1].name).unlink()
    (folder / tars[2].name).write_bytes(tars[0].read_bytes())
    opened = SearchIndex(tmp_path / "x")
    near = search_text(opened, retriever, "a red circle", COUNT, rerank=0)
    found = search_text(opened, retriever, "a red circle", COUNT, rerank=30)
    there = [one for one in found if one.score is not None]
    assert {one.key for one in there} == {
        one.key for one in near[:30] if one.key.startswith(tars[0].stem)
    }
    gone = [one for one in near[:30] if not one.key.startswith(tars[0].stem)]
    assert found == [*there, *gone, *near[30:]]
    assert 0 < len(there) < 30 > len(gone) > 0
    assert read_hit_image(gone[0]) is None
    assert read_hit_image(replace(found[0], location=None)) is None


def test_few_pictures_are_in_memory_at_a_time(
    toy_index: Path, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[weakref.ref[Image.Image]] = []
    alive: list[int] = []

    def watched(found: SearchHit) -> Image.Image | None:
        alive.append(sum(one() is not None for one in read))
        image = read_hit_image(found)
        assert image is not None
        read.append(weakref.ref(image))
        return image

    monkeypatch.setattr(searching, "read_hit_image", watched)
    search_text(SearchIndex(toy_index), retriever, "a red circle", 5, rerank=20)
    assert len(alive) == 20
    assert max(alive) <= 2


def test_another_model_is_refused(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = ABOUT | {"model": "other"}
    build(tmp_path / "x", items[:3], retriever, about, IndexConfig())
    opened = SearchIndex(tmp_path / "x")
    assert search_text(opened, retriever, "a red ring")
    monkeypatch.setattr(retriever, "digest", "0" * 64)
    told = r"made by the model other \(digest .*digest 0{12}; search with that model"
    with pytest.raises(IndexFolderError, match=told):
        search_text(opened, retriever, "a red ring")
    with pytest.raises(IndexFolderError, match=told):
        search_image(opened, retriever, picture(items[0]))
