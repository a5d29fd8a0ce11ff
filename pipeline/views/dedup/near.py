"""Near-duplicates among difference hashes: each joins one keeper that it is near, never a chain.

Hashes are sorted by several random choices of their bits. Near ones agree in many bits, so that
some order brings them side by side, and only neighbours in an order are compared: time and memory
grow with the number of hashes, whatever these are (Charikar, "Similarity estimation techniques
from rounding algorithms", 2002, section 3). What two hashes are near is decided by all their bits.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.media.difference_hash import BITS, bits_apart, bits_set, near_limits
from pipeline.views.dedup.keepers import Keepers, Numbers

WORDS = BITS // 64
# Fewer bits set (or unset) tell nothing: all near-blank pictures have such hashes.
LEAST_BITS = 12
# Of two hashes that differ in 32 bits, among 10 million others, 64 orders bring 98% together.
ORDERS = 64
NEIGHBOURS = 4
_TOGETHER = 4  # orders that are looked at before members are taken out; not one for each thread
_BLOCK = 1 << 20  # rows compared at a time

Hashes = NDArray[np.uint64]  # (n, 4)


def as_words(hashes: NDArray[np.uint8]) -> Hashes:
    """View (n, 32) bytes of difference hashes as (n, 4) words."""
    return np.ascontiguousarray(hashes).view(np.uint64).reshape(-1, WORDS)


def find_keepers(
    hashes: Hashes, distance: int, fixed: int = 0, seed: int = 0
) -> tuple[Numbers, NDArray[np.int16]]:
    """Return the keeper of each hash, itself if it has none, and its distance to it.

    Hashes stand in the order of preference: a keeper comes before its members. The first `fixed`
    are not looked at for keepers of their own: they are what others must not be near.
    """
    finding = _Finding(hashes, distance, fixed)
    chance = np.random.default_rng(seed)
    with ThreadPoolExecutor(_TOGETHER) as pool:
        for _ in range(0, ORDERS, _TOGETHER):
            alive = finding.alive()
            if len(alive) < 2:
                break
            keys = [_Key.draw(chance) for _ in range(_TOGETHER)]
            pairs = [np.empty((0, 2), np.int64), *pool.map(partial(finding.pairs, alive), keys)]
            finding.absorb(np.concatenate(pairs))
    return finding.keeper, distances(hashes, finding.keeper)


def distances(hashes: Hashes, keeper: Numbers) -> NDArray[np.int16]:
    """Count the bits in which each hash differs from its keeper's."""
    apart = np.zeros(len(hashes), np.int16)
    members = np.flatnonzero(keeper != np.arange(len(keeper)))
    apart[members] = bits_apart(hashes[members].T, hashes[keeper[members]].T)
    return apart


def are_near(
    left: Hashes, right: Hashes, distance: int
) -> tuple[NDArray[np.bool_], NDArray[np.int16]]:
    """Tell which hashes of two columns are near each other, and in how many bits they differ."""
    apart, sets = bits_apart(left.T, right.T), (bits_set(left), bits_set(right))
    telling = [(each >= LEAST_BITS) & (each <= BITS - LEAST_BITS) for each in sets]
    return telling[0] & telling[1] & (apart <= near_limits(distance, *sets)), apart


@dataclass(frozen=True, slots=True)
class _Key:
    """A choice of 64 bits of a hash, one of four for each, and which of them comes first."""

    masks: tuple[int, ...]
    turn: int

    @classmethod
    def draw(cls, chance: np.random.Generator) -> "_Key":
        words = chance.integers(0, WORDS, 64)
        masks = [sum(1 << int(bit) for bit in np.flatnonzero(words == n)) for n in range(WORDS)]
        return cls(tuple(masks), int(chance.integers(1, 64)))

    def of(self, hashes: Hashes, rows: Numbers) -> NDArray[np.uint64]:
        key = np.zeros(len(rows), np.uint64)
        for word, mask in enumerate(self.masks):
            key |= hashes[rows, word] & np.uint64(mask)
        return key << np.uint64(self.turn) | key >> np.uint64(64 - self.turn)


class _Finding:
    """The keepers so far."""

    def __init__(self, hashes: Hashes, distance: int, fixed: int) -> None:
        self._hashes, self._distance, self._fixed = hashes, distance, fixed
        self._set = bits_set(hashes)
        self._telling = (self._set >= LEAST_BITS) & (self._set <= BITS - LEAST_BITS)
        self._keepers = Keepers(len(hashes), self._are_near)

    @property
    def keeper(self) -> Numbers:
        """The keeper of each hash."""
        return self._keepers.of

    def alive(self) -> Numbers:
        """Number the hashes that are no members yet."""
        return np.flatnonzero(self._telling & self._keepers.alive())

    def pairs(self, alive: Numbers, key: _Key) -> Numbers:
        """Find near pairs among neighbours in one order, (n, 2), the preferred one first."""
        order = alive[np.argsort(key.of(self._hashes, alive))]
        near = [np.empty((0, 2), np.int64), *self._near_neighbours(order)]
        return np.concatenate(near)

    def _near_neighbours(self, order: Numbers) -> Iterator[Numbers]:
        for first in range(0, len(order), _BLOCK):
            rows = order[first : first + _BLOCK + NEIGHBOURS]
            block = self._hashes[rows].T.copy()
            for step in range(1, NEIGHBOURS + 1):
                count = min(_BLOCK, len(rows) - step)
                if count < 1:
                    break
                apart = bits_apart(block[:, :count], block[:, step : step + count])
                close = np.flatnonzero(apart <= self._distance)
                left, right = rows[close], rows[close + step]
                near = apart[close] <= self._limits(left, right)
                pairs = np.stack([left[near], right[near]], axis=1)
                pairs.sort(axis=1)
                yield pairs[pairs[:, 1] >= self._fixed]

    def absorb(self, pairs: Numbers) -> None:
        """Let keepers take their near ones."""
        self._keepers.absorb(pairs)

    def _are_near(self, left: Numbers, right: Numbers) -> NDArray[np.bool_]:
        apart = bits_apart(self._hashes[left].T, self._hashes[right].T)
        return np.asarray(apart <= self._limits(left, right))

    def _limits(self, left: Numbers, right: Numbers) -> NDArray[np.float64]:
        return near_limits(self._distance, self._set[left], self._set[right])
