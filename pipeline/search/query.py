"""Search an index: ITC finds the nearest pictures or texts, and ITM puts the best of them in order.

ITM needs the pictures themselves. They are read where they lie, by the place that the index keeps
of each: a copy of every picture, or of its states, would be far larger than the index.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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
from pipeline.search import faiss_index as nearest
from pipeline.search.build import BOTH, Which
from pipeline.search.index_folder import IndexFolderError, file_of, open_current
from shards.training.source import PictureLocation
from shards.training.source_reader import read_picture_at

RERANKED = 32
_AT_ONCE = 32  # pictures in one pass of the model

Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A picture, or a text, that was found.

    `cosine` is ITC's; `score` is ITM's logit of a match plus the cosine, None where ITM did not
    look. A text has the `key`, `sha256` and `place` of the first picture that it stood with.
    """

    key: str
    sha256: str
    place: PictureLocation | None
    text: str | None
    origin: str | None
    cosine: float
    score: float | None = None


class SearchIndex:
    """An index that is open for search; a build that takes its place does not change it."""

    def __init__(self, folder: Path) -> None:
        """Open the build that counts; IndexFault if there is none, or it cannot be read."""
        self._place, self.record = open_current(folder)
        self._indices = {which: self._open(nearest.read, f"{which}.faiss") for which in BOTH}
        self._facts = {which: self._open(_Facts, f"{which}.parquet") for which in BOTH}

    def _open(self, read: Callable[[Path], Opened], name: str) -> Opened:
        path = file_of(self._place, self.record, name)
        try:
            return read(path)
        except (ValueError, OSError) as error:
            raise IndexFolderError(
                f"{path} cannot be read ({error}); build the index again"
            ) from None

    def check_model(self, retriever: Retriever) -> None:
        """Raise IndexFault unless this model made the index: vectors of two do not compare."""
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
        scores, rows = nearest.search(self._indices[which], query, k, probes)
        there = [(int(n), float(s)) for n, s in zip(rows[0], scores[0], strict=True) if n >= 0]
        facts = self._facts[which].rows([n for n, _ in there])
        return [_found(facts[n], cosine) for n, cosine in there]


class _Facts:
    """Rows of a table by their numbers; only the row groups that hold them are read."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        groups = range(self._file.num_row_groups)
        self._ends = np.cumsum([self._file.metadata.row_group(n).num_rows for n in groups])

    def rows(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        wanted = np.unique(np.fromiter(numbers, np.int64))
        groups = np.searchsorted(self._ends, wanted, "right")
        for group in np.unique(groups):
            own = wanted[groups == group]
            first = 0 if group == 0 else self._ends[group - 1]
            table = self._file.read_row_group(int(group)).take(own - first)
            found |= zip(own.tolist(), table.to_pylist(), strict=True)
        return found


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
    gone, or are others by now, keep their order behind them. Raises IndexFault for another model
    than the index was made by.
    """
    index.check_model(retriever)
    texts = retriever.encode_texts([text])
    found = index.nearest(which, texts.unit[0], max(k, rerank), probes)
    if which == "texts":
        return found[:k]
    best, rest = found[:rerank], found[rerank:]
    scored = _judge(best, retriever, texts)
    gone = [one for one in best if one.key not in {other.key for other in scored}]
    return [*_in_order(scored), *gone, *rest][:k]


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
    found = index.nearest(which, images.unit[0], max(k, rerank), probes)
    best = found[:rerank]
    if which == "images" or not best:
        return found[:k]
    texts = retriever.encode_texts([str(one.text) for one in best])
    scores = retriever.rank(images, texts, len(best)).to_text[0].tolist()
    scored = [replace(one, score=score) for one, score in zip(best, scores, strict=True)]
    return [*_in_order(scored), *found[rerank:]][:k]


def picture_of(found: SearchHit) -> Image.Image | None:
    """Read a found picture where it lies; None if it is gone, or is another by now."""
    data = b"" if found.place is None else read_picture_at(found.place)
    if hashlib.sha256(data).hexdigest() != found.sha256:
        return None
    decoded = decode(data, LIMITS)
    return None if isinstance(decoded, DecodeRefusal) else decoded.image


def _judge(found: Sequence[SearchHit], retriever: Retriever, text: EncodedTexts) -> list[SearchHit]:
    """Give the pictures that are still there the scores of ITM, some in memory at a time."""
    resize = retriever.preprocess.resize
    there = ((one, resize(image)) for one in found if (image := picture_of(one)) is not None)
    scored: list[SearchHit] = []
    while batch := list(islice(there, _AT_ONCE)):
        images = retriever.encode_images(torch.stack([pixels for _, pixels in batch]))
        scores = retriever.rank(images, text, len(batch)).to_image[0].tolist()
        scored += (replace(one, score=score) for (one, _), score in zip(batch, scores, strict=True))
    return scored


def _in_order(found: Iterable[SearchHit]) -> list[SearchHit]:
    return sorted(found, key=lambda one: -np.inf if one.score is None else one.score, reverse=True)


def _found(facts: dict[str, Any], cosine: float) -> SearchHit:
    there = facts["url"] is not None
    place = PictureLocation(facts["url"], facts["offset"], facts["size_bytes"]) if there else None
    said = (facts.get("text"), facts.get("origin"))
    return SearchHit(facts["key"], facts["sha256"], place, *said, cosine)
