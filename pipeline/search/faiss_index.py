"""FAISS behind one seam: indices of unit vectors by inner product, flat or by inverted lists.

A flat index compares a query with every vector. An inverted one (IVF) sorts vectors into cells and
looks into the `probes` cells nearest to the query alone. Where FAISS has GPUs they are used.

Shapes: N vectors, Q queries, E their width, all fp32.
"""

import math
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from shards.errors import UsageError

Vectors = NDArray[np.float32]
Kind = Literal["flat", "ivf"]
Index = faiss.Index

FLAT_UP_TO = 20_000  # vectors that are compared one by one sooner than sorted into cells
FEWEST_FOR_CELLS = 39  # vectors; FAISS warns of cells that are learned from fewer
_TRAINED_ON = 64  # vectors of each cell, at most, that the cells are learned from
_AT_ONCE = 65_536
_WANTED_RECALL = 0.97
_python: Any = faiss  # constructors as its Python has them; its stubs have those of C++
_TRIALS = 256


def build(vectors: Vectors, kind: Kind) -> Index:
    """Build an index of vectors (N, E), which may be a memory map; only parts of it are copied."""
    count, width = vectors.shape
    flat = faiss.IndexFlatIP(width)
    index = flat if kind == "flat" else _sorted_into_cells(flat, vectors)
    for first in range(0, count, _AT_ONCE):
        index.add(np.ascontiguousarray(vectors[first : first + _AT_ONCE]))
    return index


def _sorted_into_cells(flat: faiss.IndexFlatIP, vectors: Vectors) -> Index:
    """Learn the cells from some of the vectors."""
    count, width = vectors.shape
    index = faiss.IndexIVFFlat(flat, width, cells(count), faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(0).permutation(count)[: _TRAINED_ON * index.nlist]
    sample = np.ascontiguousarray(vectors[np.sort(chosen)])
    if not _gpus():
        index.train(sample)
        return index
    fast = faiss.index_cpu_to_all_gpus(index)
    fast.train(sample)
    return faiss.index_gpu_to_cpu(fast)


def cells(count: int) -> int:
    """Choose how many cells: four times the root of the vectors, as FAISS advises up to a million.

    Fewer where cells would have too few vectors to learn from.
    """
    return max(1, min(round(4 * math.sqrt(count)), count // FEWEST_FOR_CELLS))


def tune(index: Index, vectors: Vectors, queries: Vectors, k: int = 10) -> tuple[int, float]:
    """Find the fewest probes that find 0.97 of the k nearest vectors; return them and the recall.

    `index` is an inverted one; `queries` are such as will be asked, of which some are tried against
    all vectors.
    """
    trials = np.ascontiguousarray(queries[:: max(1, len(queries) // _TRIALS)][:_TRIALS])
    exact = _exact(vectors, trials, min(k, len(vectors)))
    probes = 1
    while True:
        _, nearest = search(index, trials, exact.shape[1], probes)
        recall = recall_at_k(nearest, exact)
        if recall >= _WANTED_RECALL or probes >= cells(len(vectors)):
            return probes, recall
        probes = min(2 * probes, cells(len(vectors)))


def recall_at_k(nearest: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Compute the mean share of each query's exact nearest (Q, k) that are in `nearest` (Q, k)."""
    pairs = zip(nearest.tolist(), exact.tolist(), strict=True)
    return float(np.mean([len(set(row) & set(truth)) / len(truth) for row, truth in pairs]))


def search(
    index: Index,
    queries: Vectors,
    k: int,
    probes: int | None = None,
) -> tuple[Vectors, NDArray[np.int64]]:
    """Find the k nearest vectors of queries (Q, E): cosines and numbers (Q, k), best first.

    `probes` are for an inverted index. A number is -1 where there are fewer vectors. On a GPU,
    FAISS takes a k of up to 2,048.
    """
    if probes is not None:
        space = faiss.GpuParameterSpace() if _gpus() else faiss.ParameterSpace()
        space.set_index_parameter(index, "nprobe", probes)
    contiguous = np.ascontiguousarray(queries, dtype=np.float32)
    cosines, numbers = index.search(contiguous, min(k, max(index.ntotal, 1)))
    return cosines, numbers


def search_among(
    index: Index,
    queries: Vectors,
    k: int,
    among: NDArray[np.bool_],
    probes: int | None = None,
) -> tuple[Vectors, NDArray[np.int64]]:
    """Find the k nearest vectors as `search` does, of those that `among` (N) allows.

    The index is not on a GPU.
    """
    bits = np.packbits(among, bitorder="little")  # held while FAISS reads it
    chosen = None if among.all() else _python.IDSelectorBitmap(bits)
    asked = (
        _python.SearchParameters(sel=chosen)
        if probes is None
        else _python.SearchParametersIVF(sel=chosen, nprobe=probes)
    )
    cosines, numbers = index.search(queries, min(k, max(index.ntotal, 1)), params=asked)
    return cosines, numbers


def vectors_of(index: Index, numbers: NDArray[np.int64]) -> Vectors:
    """Return vectors by their numbers: (n, E). The index is not on a GPU."""
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()  # once; 8 bytes for each vector
    if not len(numbers):
        return np.empty((0, index.d), np.float32)
    vectors: Vectors = index.reconstruct_batch(np.ascontiguousarray(numbers))
    return vectors


def write(index: Index, path: Path) -> None:
    """Write an index file."""
    faiss.write_index(index, str(path))


def read(path: Path, on_gpu: bool = True) -> Index:
    """Open an index file; on a GPU, if FAISS has one. ValueError if it is not readable.

    Without a GPU the file is mapped: only the parts that are searched come into memory. So it must
    not be cut off while it is in use.
    """
    on_gpu = on_gpu and _gpus() > 0
    try:
        index = faiss.read_index(str(path), 0 if on_gpu else faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise ValueError(f"{path.name} is no readable FAISS index") from error
    return faiss.index_cpu_to_all_gpus(index) if on_gpu else index


def _exact(vectors: Vectors, queries: Vectors, k: int) -> NDArray[np.int64]:
    """Compare queries with all vectors, some at a time."""
    heap = faiss.ResultHeap(len(queries), k, keep_max=True)
    for first in range(0, len(vectors), _AT_ONCE):
        part = faiss.IndexFlatIP(vectors.shape[1])
        part.add(np.ascontiguousarray(vectors[first : first + _AT_ONCE]))
        cosines, numbers = part.search(queries, min(k, part.ntotal))
        heap.add_result(cosines, numbers + first)
    heap.finalize()
    nearest: NDArray[np.int64] = heap.I
    return nearest


def installed() -> str:
    """Name the FAISS that is loaded, and its GPUs.

    Raises UsageError where two are installed: they share a module, and one is half overwritten.
    """
    packages = packages_distributions().get("faiss", [])
    names = sorted({name for name in packages if name.startswith("faiss-")}) or ["faiss"]
    if len(names) > 1:
        raise UsageError(
            f"{' and '.join(names)} are installed, and both bring the module faiss; uninstall "
            "both, then install one: capfilt[search], or capfilt[gpu]"
        )
    return f"{names[0]} {faiss.__version__}, {_gpus() or 'no'} GPU"


def _gpus() -> int:
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0
