"""Embeddings that are compared one with all: a measure of what an index should find."""

import numpy as np
from numpy.typing import NDArray


class Exact:
    """Unit vectors with the first halves of their pictures' hashes, made up if not given."""

    def __init__(
        self, vectors: NDArray[np.float32], sha256: NDArray[np.uint64] | None = None
    ) -> None:
        self.all = vectors
        chance = np.random.default_rng(9)
        made_up = chance.integers(0, 2**63, (len(vectors), 2), np.uint64)
        self.sha256 = made_up if sha256 is None else sha256

    def vectors(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.all[numbers]

    def nearest(
        self,
        numbers: NDArray[np.int64],
        k: int,
        among: NDArray[np.bool_],
        effort: int = 1,  # noqa: ARG002 - all are looked at
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        found = np.where(among, self.all[numbers] @ self.all.T, -2)
        order = np.argsort(-found, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(found, order, axis=1)
        return best, np.where(best > -2, order, -1)


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Bring rows to length 1."""
    normed: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed.astype(np.float32)
