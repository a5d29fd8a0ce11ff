"""Search an index: ITC finds the nearest pictures or texts, and ITM puts the best of them in order.

ITM needs the pictures themselves. They are read where they lie, by the place that the index keeps
of each: a copy of every picture, or of its states, would be far larger than the index.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from models.roles.retrieval import EncodedTexts, Retriever
from pipeline.media.decode import DecodeRefusal, decode
from pipeline.media.pictures import LIMITS
from pipeline.search import faiss_index
from pipeline.search.build import BOTH, Which
from pipeline.search.index_folder import IndexFolderError, file_of, open_current
from shards.training.source import PictureLocation, read_picture_at

RERANKED = 32
_AT_ONCE = 32  # pictures in one pass of the model

Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A picture, or a text, that was found.

    `cosine` is ITC's; `score` is ITM's logit of a match plus the cosine, None where ITM did not
    look. A text has the `key`, `sha256` and `location` of the first picture that it stood with.
    """

    key: str
    sha256: str
    location: PictureLocation | None
    text: str | None
    origin: str | None
    cosine: float
    score: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the row that programs read, where the location is called `place`."""
        row = asdict(self)
        return {("place" if name == "location" else name): row[name] for name in row}


class SearchIndex:
    """An index that is open for search; a build that takes its place does not change it."""

    def __init__(self, folder: Path) -> None:
        """Open the build that counts; IndexFolderError if there is none, or it cannot be read."""
        self._folder, self.record = open_current(folder)
        self._indices = {which: self._open(faiss_index.read, f"{which}.faiss") for which in BOTH}
        self._facts = {which: self._open(_Facts, f"{which}.parquet") for which in BOTH}

    def _open(self, read: Callable[[Path], Opened], name: str) -> Opened:
        path = file_of(self._folder, self.record, name)
        try:
            return read(path)
        except (ValueError, OSError) as error:
            raise IndexFolderError(
                f"{path} cannot be read ({error}); build the index again"
            ) from None

    def check_model(self, retriever: Retriever) -> None:
        """Raise IndexFolderError unless this model made the index: those of two do not compare."""
        if retriever.digest != self.record["model_digest"]:
            raise IndexFolderError(
                f"the index was made by the model {self.record['model']} (digest "
                f"{self.record['model_digest'][:12]}), this one has digest "
                f"{retriever.digest[:12]}; search with that model, or build the index again"
            )

    def nearest(
        self, which: Which, vector: Tensor, k: int, probes: int | None = None
    ) -> list[SearchHit]:
        """Find the k nearest pictures or texts of a unit vector (E,), best first.

        `probes` is for an index by cells; default: as many as found 0.97 of the nearest ten when
        it was built.
        """
        about = self.record[which]
        if not about["count"]:
            return []
        if about["kind"] == "flat":
            probes = None
        elif probes is None:
            probes = about["probes"]
        query = vector.cpu().numpy()[None]
        (cosines,), (numbers,) = faiss_index.search(self._indices[which], query, k, probes)
        hits = [(int(n), float(c)) for n, c in zip(numbers, cosines, strict=True) if n >= 0]
        facts = self._facts[which].rows([n for n, _ in hits])
        return [_hit(facts[n], cosine) for n, cosine in hits]


class _Facts:
    """Rows of a table by their numbers; only the row groups that hold them are read."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        groups = range(self._file.num_row_groups)
        self._ends = np.cumsum([self._file.metadata.row_group(n).num_rows for n in groups])

    def rows(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        rows: dict[int, dict[str, Any]] = {}
        wanted = np.unique(np.fromiter(numbers, np.int64))
        groups = np.searchsorted(self._ends, wanted, "right")
        for group in np.unique(groups):
            in_group = wanted[groups == group]
            first = 0 if group == 0 else self._ends[group - 1]
            table = self._file.read_row_group(int(group)).take(in_group - first)
            rows |= zip(in_group.tolist(), table.to_pylist(), strict=True)
        return rows


def search_text(
    index: SearchIndex,
    retriever: Retriever,
    text: str,
    k: int = 10,
    *,
    which: Which = "images",
    rerank: int = RERANKED,
    probes: int | None = None,
) -> list[SearchHit]:
    """Find the pictures, or the texts, that are nearest to a text.

    ITM puts the best `rerank` pictures in order, by the rule of `Retriever.rank`; those that are
    gone, or are others by now, keep their order behind them. Raises IndexFolderError for another
    model than the index was made by.
    """
    index.check_model(retriever)
    texts = retriever.encode_texts([text])
    hits = index.nearest(which, texts.unit[0], max(k, rerank), probes)
    if which == "texts":
        return hits[:k]
    best, rest = hits[:rerank], hits[rerank:]
    scored = _score_pictures(best, retriever, texts)
    keys = {hit.key for hit in scored}
    gone = [hit for hit in best if hit.key not in keys]
    return [*_best_first(scored), *gone, *rest][:k]


def search_image(
    index: SearchIndex,
    retriever: Retriever,
    picture: Image.Image,
    k: int = 10,
    *,
    which: Which = "texts",
    rerank: int = RERANKED,
    probes: int | None = None,
) -> list[SearchHit]:
    """Find the texts, or the pictures, that are nearest to a picture; see `search_text`."""
    index.check_model(retriever)
    images = retriever.encode_images(retriever.preprocess.resize(picture)[None])
    hits = index.nearest(which, images.unit[0], max(k, rerank), probes)
    best = hits[:rerank]
    if which == "images" or not best:
        return hits[:k]
    texts = retriever.encode_texts([str(hit.text) for hit in best])
    scores = retriever.rank(images, texts, len(best)).to_text[0].tolist()
    scored = [replace(hit, score=score) for hit, score in zip(best, scores, strict=True)]
    return [*_best_first(scored), *hits[rerank:]][:k]


def read_hit_image(hit: SearchHit) -> Image.Image | None:
    """Read a hit's picture where it lies; None if it is gone, or is another by now."""
    data = b"" if hit.location is None else read_picture_at(hit.location)
    if hashlib.sha256(data).hexdigest() != hit.sha256:
        return None
    decoded = decode(data, LIMITS)
    return None if isinstance(decoded, DecodeRefusal) else decoded.image


def _score_pictures(
    hits: Sequence[SearchHit], retriever: Retriever, text: EncodedTexts
) -> list[SearchHit]:
    """Score by ITM the pictures that are still there, some in memory at a time."""
    resize = retriever.preprocess.resize
    there = ((hit, resize(image)) for hit in hits if (image := read_hit_image(hit)) is not None)
    scored: list[SearchHit] = []
    while batch := list(islice(there, _AT_ONCE)):
        images = retriever.encode_images(torch.stack([pixels for _, pixels in batch]))
        scores = retriever.rank(images, text, len(batch)).to_image[0].tolist()
        scored += (replace(hit, score=score) for (hit, _), score in zip(batch, scores, strict=True))
    return scored


def _best_first(hits: Iterable[SearchHit]) -> list[SearchHit]:
    return sorted(hits, key=lambda hit: -np.inf if hit.score is None else hit.score, reverse=True)


def _hit(row: dict[str, Any], cosine: float) -> SearchHit:
    there = row["url"] is not None
    location = PictureLocation(row["url"], row["offset"], row["size_bytes"]) if there else None
    text, origin = row.get("text"), row.get("origin")
    return SearchHit(row["key"], row["sha256"], location, text, origin, cosine)
