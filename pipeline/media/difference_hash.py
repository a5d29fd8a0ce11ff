"""How near two difference hashes must be to be of the same picture."""

import numpy as np
from numpy.typing import NDArray

BITS = 256
# The largest at which 9 in 10 that are found are copies, on real pictures (docs/dedup.md).
DISTANCE = 26

Counts = NDArray[np.int16]  # of bits


def near_limits(distance: int, left: Counts, right: Counts) -> NDArray[np.float64]:
    """Return the most bits in which near hashes differ that have so many bits set.

    Strangers whose hashes have `a` and `b` of 256 bits set differ in `a + b - 2ab/256` of them: 128
    in pictures of much detail, but 30 where each has 16. The distance shrinks by the same share.
    """
    a, b = left.astype(np.float64), right.astype(np.float64)
    return np.rint(distance * (a + b - 2 * a * b / BITS) / (BITS / 2))


def bits_apart(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> Counts:
    """Count differing bits of hashes that stand in columns, a word in each row."""
    apart = np.zeros(left.shape[1:], np.int16)
    for a, b in zip(left, right, strict=True):
        apart += np.bitwise_count(a ^ b)
    return apart


def bits_set(hashes: NDArray[np.uint64]) -> Counts:
    """Count the bits that are set in each row of words."""
    return np.bitwise_count(hashes).sum(axis=-1, dtype=np.int16)
