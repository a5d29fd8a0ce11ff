"""The pictures of an index by number: their hashes, their vectors, and the nearest of some."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from models.roles.retrieval import Retriever
from pipeline.search import faiss_index
from pipeline.search.build import IndexConfig, IndexItem, build
from pipeline.search.index_folder import IndexFolderError, open_current
from pipeline.search.pictures import IndexedPictures
from tests.support.small_index import ABOUT, unit


def test_pictures_are_known_by_their_bytes_and_have_their_own_vectors(
    toy_index: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    pictures = IndexedPictures(toy_index)
    digests = b"".join(hashlib.sha256(item.image).digest()[:16] for item in items)
    assert pictures.sha256.tobytes() == digests
    numbers = np.array([11, 0, 37])
    expected = np.concatenate([unit(retriever, items[n]).numpy() for n in numbers])
    assert pictures.vectors(numbers) == pytest.approx(expected, abs=1e-5)
    assert pictures.vectors(numbers[:0]).shape == (0, expected.shape[1])


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_the_nearest_are_those_of_what_may_be_found(
    kind: faiss_index.Kind, items: list[IndexItem], retriever: Retriever, tmp_path: Path
) -> None:
    build(tmp_path / "index", items, retriever, ABOUT, IndexConfig(kind=kind))
    pictures = IndexedPictures(tmp_path / "index")
    if kind == "ivf":  # all cells are looked into, so that the answer is exact
        pictures.record["images"]["probes"] = faiss_index.cells(len(items))
    everything = np.arange(len(items))
    vectors = pictures.vectors(everything)
    for among in (np.ones(len(items), bool), everything % 3 == 0):
        cosines, numbers = pictures.nearest(np.array([4, 6]), 5, among)
        exact = np.where(among, vectors[[4, 6]] @ vectors.T, -2)
        assert cosines == pytest.approx(-np.sort(-exact, axis=1)[:, :5], abs=1e-5)
        assert among[numbers].all()
    _, few = pictures.nearest(np.array([4]), 5, everything == 8)
    assert few.tolist() == [[8, -1, -1, -1, -1]]


def test_a_file_that_was_cut_off_is_told(toy_index: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="holds no index"):
        IndexedPictures(tmp_path)
    build_folder, _ = open_current(toy_index)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / build_folder.name).mkdir()
    for path in build_folder.iterdir():
        (copy / build_folder.name / path.name).write_bytes(path.read_bytes()[:-8])
    (copy / build_folder.name / "index.json").write_bytes(
        (build_folder / "index.json").read_bytes()
    )
    (copy / "current").write_text(build_folder.name)
    with pytest.raises(IndexFolderError, match="bytes expected"):
        IndexedPictures(copy)
