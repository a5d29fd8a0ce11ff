"""Search over embeddings of toy pictures: how near does IVF come to all, how fast, how large?

    python -m scripts.bench.subjects.search [FOLDER] [--pictures 100000]

Pictures and captions are drawn, embedded by the shipped tiny filter, and indexed as `capfilt index`
does it. Queries are captions of new pictures. What is in FOLDER (default: runs/search) is not made
again.
"""

import json
import resource
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import typer

from models.checkpoints import locate
from models.roles.retrieval import Retriever
from pipeline.search import faiss_index
from pipeline.search.build import IndexConfig, build, items_of_tars
from pipeline.search.faiss_index import Index, Vectors
from pipeline.search.index_folder import current, open_current
from pipeline.search.query import SearchIndex, search_text
from pipeline.toy.world import ToyWorldConfig, toy_sample, write_toy_world

QUERIES, K = 1_000, 10


def main(work: Path = typer.Argument(Path("runs/search")), pictures: int = 100_000) -> None:
    """Build, search by IVF and flat over toy embeddings, and print the figures."""
    world, folder = work / "world", work / "toy.index"
    if not world.is_dir():
        content = {"samples": pictures, "noise": 0, "kinds": 4, "image_px": 32}
        write_toy_world(world, ToyWorldConfig(samples_per_shard=5_000, **content))
    retriever = Retriever.load(locate.SHIPPED["tiny-filter"], dtype="fp32")
    if current(folder) is None:
        began = time.perf_counter()
        about = {"model": "tiny-filter", "max_tokens": 35, "sources": [str(world)], "view": None}
        config = IndexConfig(kind="ivf", batch_size=64, features=True)
        build(folder, items_of_tars([str(world)]), retriever, about, config)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"embedding and building: {time.perf_counter() - began:.0f} s, peak {peak:.2f} GiB")
    compare(folder, retriever)


def compare(folder: Path, retriever: Retriever) -> None:
    """Search flat and by cells, with the same queries."""
    world = ToyWorldConfig(kinds=4, noise=0, seed=1)
    texts = [toy_sample(n, False, world).text for n in range(QUERIES)]
    queries = np.concatenate([retriever.encode_texts([text]).unit.numpy() for text in texts])
    search_whole(folder, retriever, texts[:100])
    build_folder, record = open_current(folder)
    table = pq.read_table(build_folder / "features.parquet", filters=[("kind", "=", "image")])
    numbers = table["vector"].combine_chunks().flatten().to_numpy()
    vectors = np.ascontiguousarray(numbers.reshape(len(table), -1))
    exact = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :K]
    print(f"{len(vectors):,} vectors of {vectors.shape[1]}, {QUERIES:,} queries")
    for kind in ("flat", "ivf"):
        began = time.perf_counter()
        index = faiss_index.build(vectors, kind)
        print(f"{kind}: built in {time.perf_counter() - began:.2f} s")
        if kind == "flat":
            print(f"  all: {measure(index, queries, exact)}")
    chosen = record["images"]["probes"]
    ivf = faiss_index.read(build_folder / "images.faiss")
    for probes in sorted({1, max(1, chosen // 2), chosen, 2 * chosen}):
        default = " (default)" if probes == chosen else ""
        print(f"  {probes} probes{default}: {measure(ivf, queries, exact, probes)}")
    sizes = {path.name: path.stat().st_size / 2**20 for path in sorted(build_folder.iterdir())}
    print(json.dumps({name: f"{size:.1f} MiB" for name, size in sizes.items()}))
    print(json.dumps({which: record[which] for which in ("images", "texts")}))


def search_whole(folder: Path, retriever: Retriever, texts: list[str]) -> None:
    """Time whole searches, from the words to the rows, and the memory that the index takes."""
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    opened = SearchIndex(folder)
    print(f"opened in {1e3 * (time.perf_counter() - began):.1f} ms")
    for rerank in (0, 32):
        took = []
        for text in texts:
            began = time.perf_counter()
            search_text(opened, retriever, text, K, rerank=rerank)
            took.append(time.perf_counter() - began)
        grown = (psutil.Process().memory_info().rss - before) / 2**20
        speed = f"{1e3 * float(np.median(took)):.1f} ms a search"
        print(f"with {rerank} re-ranked: {speed}; the process has grown by {grown:.0f} MiB")


def measure(index: Index, queries: Vectors, exact: np.ndarray, probes: int | None = None) -> str:
    """Time single queries and all at once, and compute how many of the nearest are found."""
    began = time.perf_counter()
    _, nearest = faiss_index.search(index, queries, K, probes)
    together_ms = 1e3 * (time.perf_counter() - began) / len(queries)
    alone = []
    for query in queries[:200]:
        began = time.perf_counter()
        faiss_index.search(index, query[None], K, probes)
        alone.append(time.perf_counter() - began)
    recall = faiss_index.recall_at_k(nearest, exact)
    what = f"recall@{K} {recall:.4f}, {1e3 * float(np.median(alone)):.3f} ms a query"
    return f"{what}, {together_ms:.3f} ms of {len(queries):,} at once"


if __name__ == "__main__":
    typer.run(main)
