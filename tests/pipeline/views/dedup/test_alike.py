"""Pictures by their embeddings: who is found, who is left alone, and who never keeps whom."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.views.dedup import alike
from pipeline.views.dedup.alike import cosines, find_alike, numbers_of
from tests.support.embeddings import Exact, unit

SIMILARITY, WIDTH = 0.95, 32


def strangers(count: int, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((count, WIDTH)))


def near(rows: NDArray[np.float32], cosine: float, seed: int) -> NDArray[np.float32]:
    """Turn each row by an angle of that cosine, into a direction of its own."""
    drawn = np.random.default_rng(seed).standard_normal(rows.shape)
    aside = unit(drawn - (drawn * rows).sum(axis=1, keepdims=True) * rows)
    return unit(cosine * rows + np.sqrt(1 - cosine**2) * aside)


def test_copies_join_their_original_and_strangers_stay() -> None:
    originals = strangers(300)
    source = np.random.default_rng(1).permutation(300)[:120]
    embeddings = Exact(np.concatenate([originals, near(originals[source], 0.98, 2)]))
    keeper = find_alike(embeddings, np.arange(420), SIMILARITY)
    assert keeper[:300].tolist() == list(range(300))
    assert keeper[300:].tolist() == source.tolist()


def test_in_a_chain_each_is_like_its_keeper_and_no_member_keeps_another() -> None:
    angles = np.arange(90) * np.radians(4)  # neighbours have a cosine of .998, the ends are far
    rows = np.zeros((90, WIDTH))
    rows[:, 0], rows[:, 1] = np.cos(angles), np.sin(angles)
    vectors = rows.astype(np.float32)[np.random.default_rng(3).permutation(90)]
    keeper = find_alike(Exact(vectors), np.arange(90), SIMILARITY)
    assert (keeper[keeper] == keeper).all()
    assert (keeper <= np.arange(90)).all()
    assert ((vectors * vectors[keeper]).sum(axis=1) >= SIMILARITY).all()
    kept = np.unique(keeper)
    between = vectors[kept] @ vectors[kept].T - 2 * np.eye(len(kept))
    assert between.max() < SIMILARITY  # no two that are kept are alike


@pytest.mark.parametrize("block", [64, 16_384])
def test_a_crowd_larger_than_what_is_asked_for_ends_with_one_keeper(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alike, "_BLOCK", block)
    crowd = near(np.repeat(strangers(1), 500, axis=0), 0.99, 4)
    assert (crowd @ crowd.T).min() > SIMILARITY
    assert find_alike(Exact(crowd), np.arange(500), SIMILARITY).tolist() == [0] * 500


def test_others_keep_ours_and_are_never_members() -> None:
    originals = strangers(20)
    embeddings = Exact(np.concatenate([originals, originals, near(originals, 0.98, 5)]))
    keeper = find_alike(embeddings, np.arange(60), SIMILARITY, fixed=40)
    assert keeper[:40].tolist() == list(range(40))
    assert ((keeper[40:] % 20) == np.arange(20)).all()
    assert (keeper[40:] < 40).all()


def test_what_is_not_compared_keeps_nobody() -> None:
    originals = strangers(10)
    embeddings = Exact(np.concatenate([originals, near(originals, 0.98, 6)]))
    numbers = np.arange(10, 20)[::-1]  # in another order than the index has them
    assert find_alike(embeddings, numbers, SIMILARITY).tolist() == list(range(10))
    both = np.array([3, 19, 13, 9])
    assert find_alike(embeddings, both, SIMILARITY).tolist() == [0, 1, 0, 1]
    assert find_alike(embeddings, both[:0], SIMILARITY).tolist() == []


def test_pictures_are_known_by_their_hash() -> None:
    embeddings = Exact(strangers(50))
    chosen = np.array([7, 49, 0])
    unknown = np.array([[5, 5]], np.uint64)
    half = embeddings.sha256[:1] + np.array([[0, 1]], np.uint64)
    wanted = np.concatenate([embeddings.sha256[chosen], unknown, half])
    assert numbers_of(embeddings, wanted).tolist() == [7, 49, 0, -1, -1]
    assert numbers_of(Exact(strangers(0)), wanted).tolist() == [-1] * 5


def test_cosines_are_those_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "_BLOCK", 4)
    vectors = strangers(11)
    left, right = np.arange(11), np.arange(11)[::-1]
    expected = [float(np.dot(vectors[a], vectors[b])) for a, b in zip(left, right, strict=True)]
    assert cosines(Exact(vectors), left, right) == pytest.approx(expected, abs=1e-6)
