"""Indices: every picture and every text in them once, and what cannot be used is counted."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from models.roles.retrieval import Retriever
from pipeline.media import pictures
from pipeline.media.decode import Decoded, DecodeLimits, DecodeRefusal, decode
from pipeline.search import build as indexing
from pipeline.search import faiss_index as nearest
from pipeline.search.build import MAX_TEXT_BYTES, IndexConfig, IndexItem, build, items_of_tars
from pipeline.search.index_folder import IndexFolderError
from pipeline.search.query import SearchIndex, read_hit_image, search_text
from shards.inputs.shard import InputError
from tests.support.small_index import ABOUT, unit


def test_a_row_says_where_its_picture_lies(
    toy_index: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    found = search_text(SearchIndex(toy_index), retriever, "a red circle", len(items), rerank=0)
    assert {one.key for one in found} == {item.key for item in items}
    by_key = {item.key: item for item in items}
    for one in found:
        assert one.location is not None
        data = Path(one.location.url).read_bytes()[one.location.offset :][: one.location.size_bytes]
        assert data == by_key[one.key].image


def test_equal_texts_have_one_vector_and_lead_to_the_first_picture(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    text = items[0].texts[0][0]
    same = replace(items[1], texts=((f"{text.upper()}!", "web"), ("a red ring", "synthetic")))
    record = build(tmp_path / "x", [items[0], same], retriever, ABOUT, IndexConfig())
    assert record["texts"]["count"] == 2
    found = search_text(SearchIndex(tmp_path / "x"), retriever, text, which="texts")
    assert {(one.text, one.key, one.origin) for one in found} == {
        (text, items[0].key, "human"),
        ("a red ring", items[1].key, "synthetic"),
    }


def test_features_are_all_vectors(
    toy_index: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    table = pq.read_table(next(toy_index.glob("*/features.parquet"))).to_pylist()
    facts = [(row["kind"], row["key"], row["text"]) for row in table]
    assert facts == [
        *(("image", item.key, None) for item in items),
        *(("text", item.key, item.texts[0][0]) for item in items),
    ]
    vectors = torch.tensor([row["vector"] for row in table])
    looked = torch.cat([unit(retriever, item) for item in items])
    read = torch.cat([retriever.encode_texts([item.texts[0][0]]).unit for item in items])
    assert torch.allclose(vectors, torch.cat([looked, read]), atol=1e-5)


def test_an_index_does_not_depend_on_the_batch_or_the_row_groups(
    tmp_path: Path,
    toy_index: Path,
    items: list[IndexItem],
    retriever: Retriever,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(indexing, "_ROW_GROUP", 9)
    build(tmp_path / "x", items, retriever, ABOUT, IndexConfig(batch_size=6, features=True))
    assert pq.ParquetFile(next(tmp_path.glob("x/*/images.parquet"))).num_row_groups > 2
    one, other = (
        pq.read_table(next(folder.glob("*/features.parquet")))
        for folder in (toy_index, tmp_path / "x")
    )
    assert one.drop_columns("vector").equals(other.drop_columns("vector"))
    vectors = [np.stack(table["vector"].to_numpy()) for table in (one, other)]
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-5)
    said = [
        [
            replace(row, cosine=0.0)
            for row in search_text(SearchIndex(folder), retriever, "a red circle", 50, rerank=0)
        ]
        for folder in (toy_index, tmp_path / "x")
    ]
    assert said[0] == said[1]


def test_what_cannot_be_used_is_counted_and_the_rest_is_found(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    bad = [
        replace(items[0], image=b"no picture"),
        replace(items[0], image=b"", reason="image_missing"),
        IndexItem("shard", b"", (), None, "shard_not_a_tar"),
    ]
    texts = (("!!!", "web"), ("é" * MAX_TEXT_BYTES, "web"))  # nothing is left; far too much is
    odd = replace(items[1], texts=texts)
    silent = replace(items[2], texts=(), text_reason="text_missing")
    record = build(
        tmp_path / "x",
        [*bad, odd, silent, *items[3:5]],
        retriever,
        ABOUT,
        IndexConfig(batch_size=2),
    )
    assert record["left_out"] == {
        "image_undecodable": 1,
        "image_missing": 1,
        "shard_not_a_tar": 1,
        "text_empty": 1,
        "text_too_long": 1,
        "text_missing": 1,
    }
    assert record["images"]["count"] == 4
    assert record["texts"]["count"] == 2
    found = search_text(SearchIndex(tmp_path / "x"), retriever, "a red ring", 9)
    assert {one.key for one in found} == {item.key for item in items[1:5]}


def test_a_sample_of_very_many_texts(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def watched(texts: list[str]) -> Any:
        read.append(len(texts))
        return Retriever.encode_texts(retriever, texts)

    monkeypatch.setattr(retriever, "encode_texts", watched)
    many = replace(items[0], texts=tuple((f"a red ring {n}", "web") for n in range(600)))
    record = build(tmp_path / "x", [many, *items[1:3]], retriever, ABOUT, IndexConfig())
    assert record["texts"]["count"] == 602
    assert max(read) <= 256


def test_few_pictures_are_in_memory_at_a_time(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[weakref.ref[Image.Image]] = []
    alive: list[int] = []

    def watched(data: bytes, limits: DecodeLimits) -> Decoded | DecodeRefusal:
        alive.append(sum(one() is not None for one in decoded))
        found = decode(data, limits)
        assert isinstance(found, Decoded)
        decoded.append(weakref.ref(found.image))
        return found

    monkeypatch.setattr(pictures, "decode", watched)
    build(tmp_path / "x", items[:20], retriever, ABOUT, IndexConfig(batch_size=20))
    assert len(alive) == 20
    assert max(alive) <= 4  # as many as threads, not as a batch


def test_bad_inputs_are_counted_under_their_reasons(
    tmp_path: Path, bad_inputs: Path, cases: list[dict[str, Any]], retriever: Retriever
) -> None:
    tars = [str(path) for path in sorted(bad_inputs.rglob("*.tar"))]
    found = list(items_of_tars(tars))
    record = build(tmp_path / "x", found, retriever, ABOUT, IndexConfig())
    left_out = sum(n for reason, n in record["left_out"].items() if not reason.startswith("text_"))
    assert record["images"]["count"] + left_out == len(found)
    assert record["left_out"]["image_undecodable"] > 0
    assert any(reason.startswith("shard_") for reason in record["left_out"])
    assert cases  # the same samples as `clean` is tested on


def test_an_index_of_pictures_alone(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    silent = [replace(item, texts=()) for item in items[:5]]
    config = IndexConfig(features=True)
    assert build(tmp_path / "x", silent, retriever, ABOUT, config)["texts"]["count"] == 0
    opened = SearchIndex(tmp_path / "x")
    assert search_text(opened, retriever, "a red ring", which="texts") == []
    found = search_text(opened, retriever, "a red ring")
    assert len(found) == 5
    assert isinstance(read_hit_image(found[0]), Image.Image)


def test_many_vectors_go_into_cells_and_few_do_not(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = build(tmp_path / "few", items[:20], retriever, ABOUT, IndexConfig(kind="ivf"))
    assert record["images"]["kind"] == "flat"  # too few to learn cells from
    monkeypatch.setattr(nearest, "FLAT_UP_TO", 30)
    wanted = [*items, *items]  # 80 pictures, fewer texts
    record = build(tmp_path / "auto", wanted, retriever, ABOUT, IndexConfig())
    assert record["images"]["kind"] == "ivf"
    assert record["images"]["recall@10"] >= 0.97 or (
        record["images"]["probes"] == record["images"]["cells"]
    )
    opened = SearchIndex(tmp_path / "auto")
    vector = unit(retriever, items[3])[0]
    assert opened.nearest("images", vector, 1)[0].key == items[3].key
    few, all_ = (opened.nearest("images", vector, 80, probes) for probes in (1, 2))
    assert len(few) < len(all_) == 80


def test_nothing_to_index_is_told_and_the_old_index_stays(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    folder = tmp_path / "x"
    build(folder, items[:3], retriever, ABOUT, IndexConfig())
    bad = replace(items[0], image=b"no picture")
    with pytest.raises(IndexFolderError, match=r"no picture to index .*image_undecodable"):
        build(folder, [bad], retriever, ABOUT, IndexConfig())
    assert SearchIndex(folder).record["images"]["count"] == 3
    assert not list(folder.glob("unfinished-*"))


def test_a_build_that_fails_leaves_nothing_behind(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    def broken() -> Iterator[IndexItem]:
        yield from items[:3]
        raise OSError("the disk is full")

    folder = tmp_path / "x"
    with pytest.raises(OSError, match="the disk is full"):
        build(folder, broken(), retriever, ABOUT, IndexConfig(batch_size=2))
    assert list(folder.iterdir()) == []
    with pytest.raises(InputError, match="there is no"):  # before anything is read or written
        items_of_tars([str(tmp_path / "none.tar")])
