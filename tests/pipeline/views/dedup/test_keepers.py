"""Who keeps whom: the preferred take first, and no member keeps another."""

import numpy as np
from numpy.typing import NDArray

from pipeline.views.dedup.keepers import Keepers

REACH = 10


def keepers(places: list[int]) -> Keepers:
    """Keepers of places on a line, near each other up to a reach."""
    at = np.array(places)

    def are_near(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.abs(at[left] - at[right]) <= REACH

    return Keepers(len(places), are_near)


def test_the_preferred_takes_first() -> None:
    made = keepers([0, 5, 9])
    freed = made.absorb(np.array([[1, 2], [0, 1], [0, 2]]))
    assert made.of.tolist() == [0, 0, 0]
    assert made.alive().tolist() == [True, False, False]
    assert freed.tolist() == []


def test_members_go_to_the_new_keeper_if_they_are_near_it_else_they_are_free() -> None:
    made = keepers([0, 8, 9, 16])
    made.absorb(np.array([[1, 2], [1, 3]]))
    assert made.of.tolist() == [0, 1, 1, 1]
    freed = made.absorb(np.array([[0, 1]]))
    assert made.of.tolist() == [0, 0, 0, 3]
    assert freed.tolist() == [3]


def test_no_pairs_change_nothing() -> None:
    made = keepers([0, 50])
    assert made.absorb(np.empty((0, 2), np.int64)).tolist() == []
    assert made.of.tolist() == [0, 1]
