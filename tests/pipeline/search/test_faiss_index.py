"""FAISS behind its seam, against plain products of matrices."""

import re
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from pipeline.search import faiss_index
from shards.errors import UsageError


def unit(count: int, width: int, seed: int, centres: int = 40) -> faiss_index.Vectors:
    """Draw vectors around centres, as embeddings lie, of length 1."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(99).normal(size=(centres, width))
    found = middle[rng.integers(0, centres, count)] + 0.4 * rng.normal(size=(count, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_a_flat_index_finds_what_a_product_finds() -> None:
    vectors, queries = unit(700, 16, 1), unit(9, 16, 2)
    scores, places = faiss_index.search(faiss_index.build(vectors, "flat"), queries, 5)
    cosines = queries @ vectors.T
    order = np.argsort(-cosines, axis=1)[:, :5]
    assert places.tolist() == order.tolist()
    assert scores == pytest.approx(np.take_along_axis(cosines, order, 1), abs=1e-5)


def test_an_inverted_index_finds_nearly_all_with_the_probes_it_chose() -> None:
    vectors, queries = unit(6_000, 16, 3), unit(300, 16, 4)
    index = faiss_index.build(vectors, "ivf")
    probes, recall = faiss_index.tune(index, vectors, queries)
    assert 1 <= probes < faiss_index.cells(len(vectors))
    asked = unit(200, 16, 5)
    exact = np.argsort(-(asked @ vectors.T), axis=1)[:, :10]
    _, found = faiss_index.search(index, asked, 10, probes)
    slow = fmean(len({*a} & {*b}) / 10 for a, b in zip(found, exact, strict=True))
    assert faiss_index.recall_at_k(found, exact) == pytest.approx(slow)
    assert min(recall, slow) >= 0.95
    _, few = faiss_index.search(index, asked, 10, 1)
    assert faiss_index.recall_at_k(few, exact) < slow


def test_fewer_vectors_than_asked_for() -> None:
    vectors = unit(3, 8, 6)
    _, places = faiss_index.search(faiss_index.build(vectors, "flat"), vectors, 10)
    assert sorted(places[0].tolist()) == [0, 1, 2]
    _, places = faiss_index.search(faiss_index.build(unit(50, 8, 7), "ivf"), vectors, 50, 1)
    assert places.min() >= -1


def test_a_file_comes_back_and_another_is_told(tmp_path: Path) -> None:
    vectors = unit(100, 8, 8)
    path = tmp_path / "x.faiss"
    faiss_index.write(faiss_index.build(vectors, "flat"), path)
    _, places = faiss_index.search(faiss_index.read(path), vectors, 1)
    assert places[:, 0].tolist() == list(range(100))
    path.write_bytes(b"no index")
    with pytest.raises(ValueError, match=r"x\.faiss is no readable FAISS index"):
        faiss_index.read(path)


@pytest.mark.gpu
def test_a_gpu_finds_what_the_processor_finds(tmp_path: Path) -> None:
    if not faiss_index._gpus():
        pytest.skip("FAISS sees no GPU: it needs one, and faiss-gpu-cu12")
    vectors, queries = unit(6_000, 16, 3), unit(100, 16, 4)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    kinds: dict[faiss_index.Kind, float] = {"flat": 0.999, "ivf": 0.95}
    for kind, least in kinds.items():
        built = faiss_index.build(vectors, kind)
        probes = faiss_index.tune(built, vectors, queries)[0] if kind == "ivf" else None
        faiss_index.write(built, tmp_path / kind)
        _, found = faiss_index.search(faiss_index.read(tmp_path / kind), queries, 10, probes)
        assert faiss_index.recall_at_k(found, exact) >= least


def test_the_faiss_that_is_loaded_is_named() -> None:
    assert re.fullmatch(r"faiss-(cpu|gpu-cu12) \S+, (no|\d+) GPU", faiss_index.installed())


def test_two_packages_of_one_module_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"faiss": ["faiss-cpu", "faiss-gpu-cu12"]}
    monkeypatch.setattr(faiss_index, "packages_distributions", lambda: both)
    with pytest.raises(UsageError, match="faiss-cpu and faiss-gpu-cu12 are installed"):
        faiss_index.installed()
