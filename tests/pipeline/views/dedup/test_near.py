"""Near-duplicates by hash: who is found, who is left alone, and who never keeps whom."""

import numpy as np
import pytest

from pipeline.views.dedup.near import LEAST_BITS, as_words, find_keepers

DISTANCE = 28


def strangers(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def flipped(bits: np.ndarray, places: list[int]) -> np.ndarray:
    flips = np.zeros(256, np.uint8)
    flips[places] = 1
    return bits ^ np.packbits(flips)


def apart(left: np.ndarray, right: np.ndarray) -> int:
    """Count differing bits, by other means than the product's."""
    return (int.from_bytes(left.tobytes()) ^ int.from_bytes(right.tobytes())).bit_count()


def planted(originals: int, copies: int, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return strangers, then copies of the first of them; and whose copy each is (or its own)."""
    chance = np.random.default_rng(seed)
    hashes, source = strangers(originals, seed), chance.integers(0, originals // 10, copies)
    far = chance.integers(1, most + 1, copies)
    changed = [
        flipped(hashes[of], chance.choice(256, bits, replace=False).tolist())
        for of, bits in zip(source, far, strict=True)
    ]
    return np.concatenate([hashes, changed]), np.concatenate([np.arange(originals), source])


def test_copies_join_their_original_and_strangers_stay() -> None:
    hashes, truth = planted(4_000, 2_000, most=DISTANCE - 3, seed=1)
    keeper, distance = find_keepers(as_words(hashes), DISTANCE)
    members = np.flatnonzero(keeper != np.arange(len(keeper)))
    assert len(members) >= 0.99 * 2_000
    assert (keeper[members] == truth[members]).all()
    for member in members[:200]:
        assert distance[member] == apart(hashes[member], hashes[keeper[member]]) <= DISTANCE


def test_a_member_keeps_nobody_and_each_is_near_its_keeper() -> None:
    chance = np.random.default_rng(2)
    drift, hashes = strangers(1, seed=2)[0], []
    for _ in range(300):  # each near the one before, the first far from the last: a chain
        hashes.append(drift)
        drift = flipped(drift, chance.choice(256, 8, replace=False).tolist())
    keeper, _ = find_keepers(as_words(np.array(hashes)), DISTANCE)
    assert (keeper[keeper] == keeper).all()
    assert len(set(keeper.tolist())) < 150
    for member, its in enumerate(keeper.tolist()):
        assert its <= member
        assert apart(hashes[member], hashes[its]) <= DISTANCE


def test_what_little_can_tell_is_held_to_less() -> None:
    """Of sparse hashes strangers are near each other, too."""
    sparse = np.zeros((1, 32), np.uint8)
    many = flipped(sparse[0], list(range(0, 32, 2)))
    others = flipped(sparse[0], list(range(100, 132, 2)))
    twin = flipped(many, [3])
    keeper, _ = find_keepers(as_words(np.array([many, others, twin])), DISTANCE)
    assert keeper.tolist() == [0, 1, 0]


@pytest.mark.parametrize("bits", [0, LEAST_BITS - 1])
def test_near_blank_pictures_are_no_duplicates(bits: int) -> None:
    blank = np.repeat(flipped(np.zeros(32, np.uint8), list(range(bits)))[None], 50, axis=0)
    keeper, _ = find_keepers(as_words(blank), DISTANCE)
    assert keeper.tolist() == list(range(50))


def test_many_of_one_kind_end_with_few_keepers() -> None:
    chance, base = np.random.default_rng(3), strangers(1, seed=3)[0]
    crowd = [flipped(base, chance.choice(256, 6, replace=False).tolist()) for _ in range(3_000)]
    keeper, _ = find_keepers(as_words(np.array(crowd)), DISTANCE)
    assert len(set(keeper.tolist())) == 1


def test_others_keep_ours_and_are_never_members() -> None:
    hashes, truth = planted(500, 300, most=10, seed=4)
    order = np.r_[500:800, 0:500]  # the copies first: they are the others
    keeper, _ = find_keepers(as_words(hashes[order]), DISTANCE, fixed=300)
    assert (keeper[:300] == np.arange(300)).all()
    ours = np.arange(300, 800)
    copied = np.isin(order[ours], truth[500:])
    assert ((keeper[ours] < 300) == copied).all()


def test_the_same_hashes_have_the_same_keepers() -> None:
    hashes, _ = planted(1_000, 500, most=DISTANCE, seed=5)
    first, second = (find_keepers(as_words(hashes), DISTANCE)[0] for _ in range(2))
    assert first.tolist() == second.tolist()
    assert find_keepers(as_words(hashes[:0]), DISTANCE)[0].tolist() == []
