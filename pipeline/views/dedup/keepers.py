"""Who keeps whom, while pairs of the same picture come in: never a chain."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
AreNear = Callable[[Numbers, Numbers], NDArray[np.bool_]]


class Keepers:
    """The keepers so far: each keeps itself, and no member keeps another.

    Rows stand in the order of preference. `of` is the keeper of each; it is near to it.
    """

    def __init__(self, count: int, are_near: AreNear) -> None:
        self._are_near = are_near
        self._itself = np.arange(count)
        self.of: Numbers = self._itself.copy()

    def alive(self) -> NDArray[np.bool_]:
        """Tell which rows are no members yet."""
        return np.asarray(self.of == self._itself)

    def absorb(self, pairs: Numbers) -> Numbers:
        """Let keepers take their near ones of (n, 2) pairs, the better in front; return the freed.

        The preferred take first. Members of one that becomes a member itself go to its keeper
        where they are near it, and are free where they are not.
        """
        keeper = self.of
        for better, worse in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
            if keeper[better] == better and keeper[worse] == worse:
                keeper[worse] = better
        lost = np.flatnonzero(keeper[keeper] != keeper)
        second = keeper[keeper[lost]]
        keeper[lost] = np.where(self._are_near(lost, second), second, lost)
        return lost[keeper[lost] == lost]
