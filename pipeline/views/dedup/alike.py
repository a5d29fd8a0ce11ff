"""Pictures that a model embeds alike: each joins one keeper that it is like, never a chain.

Whatever has embedded them, they are known by the hash of their bytes, and their nearest are asked
for; how near two are is decided by their embeddings themselves.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.views.dedup.keepers import Keepers, Numbers
from pipeline.views.dedup.near import Hashes

NEIGHBOURS = 16  # asked for, of each; a larger crowd takes several rounds
_ROUNDS, _MOST_EFFORT = 64, 256
_BLOCK = 16_384  # embeddings in memory at a time, and as many again for what is compared
_NOWHERE = -1

Vectors = NDArray[np.float32]


class Embeddings(Protocol):
    """Pictures with their embeddings, as unit vectors, by number."""

    @property
    def sha256(self) -> Hashes:
        """The first halves of the SHA-256 of their bytes: (n, 2)."""

    def vectors(self, numbers: Numbers) -> Vectors:
        """Return the embeddings of some."""

    def nearest(
        self, numbers: Numbers, k: int, among: NDArray[np.bool_], effort: int
    ) -> tuple[Vectors, Numbers]:
        """Return the cosines and numbers of the k nearest of each, which may be itself.

        `among` says which of all may be found; a number is -1 where there are no more. Where not
        all are looked at, an effort of n looks at n times as many as one of 1.
        """


def numbers_of(embeddings: Embeddings, sha256: Hashes) -> Numbers:
    """Return the number of each picture by its hash; -1 for one that has no embedding."""
    there = embeddings.sha256
    if not len(there):
        return np.full(len(sha256), _NOWHERE)
    order = np.argsort(there[:, 0])  # 64 bits tell all but a few of billions apart
    at = np.searchsorted(there[:, 0], sha256[:, 0], sorter=order)
    found = order[np.minimum(at, len(there) - 1)]
    return np.where((there[found] == sha256).all(axis=1), found, _NOWHERE)


def cosines(embeddings: Embeddings, left: Numbers, right: Numbers) -> Vectors:
    """Return the cosines of pairs, by the numbers of both."""
    found = np.empty(len(left), np.float32)
    for first in range(0, len(left), _BLOCK):
        some = slice(first, first + _BLOCK)
        sides = embeddings.vectors(left[some]), embeddings.vectors(right[some])
        found[some] = np.einsum("ne,ne->n", *sides)
    return found


def find_alike(
    embeddings: Embeddings, numbers: Numbers, similarity: float, fixed: int = 0
) -> Numbers:
    """Return the keeper of each picture, itself if it has none.

    `numbers` are of pictures in the order of preference: a keeper comes before its members. The
    first `fixed` are not looked at for keepers of their own.
    """
    size = len(embeddings.sha256)
    row_of = np.full(size, _NOWHERE)
    row_of[numbers[::-1]] = np.arange(len(numbers))[::-1]  # of the same bytes the first

    def are_alike(left: Numbers, right: Numbers) -> NDArray[np.bool_]:
        return cosines(embeddings, numbers[left], numbers[right]) >= similarity

    keepers = Keepers(len(numbers), are_alike)
    asked = np.arange(fixed, len(numbers))
    for turn in range(_ROUNDS):
        # a crowd fills many of an index's cells: few are left to be asked, and look further
        effort = min(2**turn, _MOST_EFFORT)
        again = [np.empty(0, np.int64)]
        for first in range(0, len(asked), _BLOCK):
            alive = keepers.alive()
            rows = asked[first : first + _BLOCK]
            rows = rows[alive[rows]]
            among = np.zeros(size, np.bool_)
            among[numbers[alive]] = True
            found, nearest = embeddings.nearest(numbers[rows], NEIGHBOURS, among, effort)
            close = (found >= similarity) & (nearest >= 0) & (nearest != numbers[rows][:, None])
            left = np.broadcast_to(rows[:, None], close.shape)[close]
            pairs = np.sort(np.stack([left, row_of[nearest[close]]], axis=1), axis=1)
            again += [keepers.absorb(pairs[pairs[:, 1] >= fixed]), np.unique(pairs)]
        asked = np.unique(np.concatenate(again))
        asked = asked[(asked >= fixed) & keepers.alive()[asked]]
        if not len(asked):
            break
    return keepers.of
