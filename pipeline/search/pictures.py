"""The pictures of an index by number: the hashes of their bytes, their vectors, their nearest."""

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.search import faiss_index
from pipeline.search.index_folder import IndexFolderError, file_of, open_current

_HALF_DIGITS = 32  # of a SHA-256 in hex: what tells pictures apart


class IndexedPictures:
    """The pictures of the build that counts, compared on the processor.

    The file of vectors is mapped: only the parts that are searched come into memory.
    """

    def __init__(self, folder: Path) -> None:
        """Open the build that counts; IndexFolderError if there is none, or it cannot be read."""
        self._folder, self.record = open_current(folder)
        path = file_of(self._folder, self.record, "images.faiss")
        try:
            self._index = faiss_index.read(path, on_gpu=False)
        except (ValueError, OSError) as error:
            raise IndexFolderError(
                f"{path} cannot be read ({error}); build the index again"
            ) from None

    @cached_property
    def sha256(self) -> NDArray[np.uint64]:
        """The first halves of the SHA-256 of their bytes: (n, 2)."""
        path = file_of(self._folder, self.record, "images.parquet")
        halves = [np.empty((0, 2), np.uint64)]
        for batch in pq.ParquetFile(path).iter_batches(columns=["sha256"], use_threads=False):
            digits = "".join(digest[:_HALF_DIGITS] for digest in batch["sha256"].to_pylist())
            halves.append(np.frombuffer(bytes.fromhex(digits), np.uint64).reshape(-1, 2))
        return np.concatenate(halves)

    def vectors(self, numbers: NDArray[np.int64]) -> faiss_index.Vectors:
        """Return the vectors of some: (n, E)."""
        return faiss_index.vectors_of(self._index, numbers)

    def nearest(
        self, numbers: NDArray[np.int64], k: int, among: NDArray[np.bool_], effort: int = 1
    ) -> tuple[faiss_index.Vectors, NDArray[np.int64]]:
        """Return the cosines and numbers of the k nearest of each, which may be itself.

        `among` says which of all may be found; a number is -1 where there are no more. An effort
        of n looks into n times as many cells as find 0.97 of the nearest.
        """
        about = self.record["images"]
        probes = None
        if about["kind"] == "ivf":
            probes = min(about["probes"] * effort, about["cells"])
        return faiss_index.search_among(self._index, self.vectors(numbers), k, among, probes)
