"""Search an index: ITC finds the nearest pictures or texts, and ITM puts the best of them in order.

ITM needs the pictures themselves. They are read where they lie, by the place that the index keeps
of each: a copy of every picture, or of its states, would be far larger than the index.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import torch
from PIL import Image

from models.roles.retrieval import Images, Retriever
from pipeline import nearest
from pipeline.decode import Refusal, decode
from pipeline.index import BOTH, LIMITS, RECORD, VERSION, IndexFault, Which, current
from shards.source import Place
from shards.source_reader import read_place

RERANKED = 32
_ROWS = (
    "SELECT * FROM read_parquet(?, file_row_number=true) WHERE list_contains(?, file_row_number)"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A picture, or a text, that was found.

    `cosine` is ITC's; `score` is ITM's logit of a match plus the cosine, None where ITM did not
    look. A text has the `key` and `place` of the first picture that it stood with.
    """

    key: str
    place: Place | None
    text: str | None
    origin: str | None
    cosine: float
    score: float | None = None


class Index:
    """An index that is open for search."""

    def __init__(self, folder: Path) -> None:
        """Open the build that counts; IndexFault if there is none, or it cannot be read."""
        name = current(folder)
        if name is None:
            raise IndexFault(f"{folder} holds no index; make one with `capfilt index`")
        self._place = folder / name
        self.record = _read_record(self._place / RECORD)
        self._indices = {which: self._open(which) for which in BOTH}

    def _open(self, which: Which) -> nearest.Index:
        try:
            return nearest.read(self._place / f"{which}.faiss")
        except ValueError as error:
            raise IndexFault(f"{error}; build the index again") from None

    def check_model(self, retriever: Retriever) -> None:
        """Raise IndexFault unless this model made the index: vectors of two do not compare."""
        if retriever.digest != self.record["model_digest"]:
            raise IndexFault(
                f"the index was made by the model {self.record['model']} (digest "
                f"{self.record['model_digest'][:12]}), this one has digest "
                f"{retriever.digest[:12]}; search with that model, or build the index again"
            )

    def nearest(
        self, which: Which, vector: torch.Tensor, k: int, probes: int | None = None
    ) -> list[Found]:
        """Find the k nearest pictures or texts of a unit vector (E,), best first."""
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
        facts = self._facts(which, [n for n, _ in there])
        return [_found(facts[n], cosine) for n, cosine in there]

    def _facts(self, which: Which, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Read the facts of some rows; those of a text with the picture that it stood with."""
        with duckdb.connect() as connection:
            cursor = connection.execute(_ROWS, [str(self._place / f"{which}.parquet"), list(rows)])
            names = [column[0] for column in cursor.description or ()]
            found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        facts = {row["file_row_number"]: row for row in found}
        if which == "texts":
            pictures = self._facts("images", sorted({row["image"] for row in found}))
            facts = {n: pictures[row["image"]] | row for n, row in facts.items()}
        return facts


def search_text(
    index: Index,
    retriever: Retriever,
    text: str,
    k: int = 10,
    *,
    which: Which = "images",
    rerank: int = RERANKED,
    probes: int | None = None,
) -> list[Found]:
    """Find the pictures, or the texts, that are nearest to a text.

    ITM puts the best `rerank` pictures in order; pictures that are gone keep their place behind.
    """
    texts = retriever.read([text])
    found = index.nearest(which, texts.unit[0], max(k, rerank), probes)
    if which == "texts" or not rerank:
        return found[:k]
    best, rest = found[:rerank], found[rerank:]
    seen = [(one, picture) for one in best if (picture := picture_of(one)) is not None]
    if not seen:
        return found[:k]
    pixels = torch.stack([retriever.preprocess.resize(picture) for _, picture in seen])
    scores = retriever.rank(retriever.look(pixels), texts, len(seen)).to_image[0]
    ranked = _in_order([one for one, _ in seen], scores)
    there = {id(one) for one, _ in seen}
    return [*ranked, *(one for one in best if id(one) not in there), *rest][:k]


def search_image(
    index: Index,
    retriever: Retriever,
    picture: Image.Image,
    k: int = 10,
    *,
    which: Which = "texts",
    rerank: int = RERANKED,
    probes: int | None = None,
) -> list[Found]:
    """Find the texts, or the pictures, that are nearest to a picture; see `search_text`."""
    images = retriever.look(retriever.preprocess.resize(picture)[None])
    found = index.nearest(which, images.unit[0], max(k, rerank), probes)
    if which == "images" or not rerank or not found:
        return found[:k]
    best = found[:rerank]
    texts = retriever.read([str(one.text) for one in best])
    scores = retriever.rank(Images(images.states, images.unit), texts, len(best)).to_text[0]
    return [*_in_order(best, scores), *found[rerank:]][:k]


def picture_of(found: Found) -> Image.Image | None:
    """Read a found picture where it lies; None if it is gone or is no picture any more."""
    if found.place is None:
        return None
    decoded = decode(read_place(found.place), LIMITS)
    return None if isinstance(decoded, Refusal) else decoded.image


def _in_order(found: Sequence[Found], scores: torch.Tensor) -> list[Found]:
    order = np.argsort(-scores.cpu().numpy(), kind="stable")
    return [replace(found[n], score=float(scores[n])) for n in order]


def _found(facts: dict[str, Any], cosine: float) -> Found:
    there = facts["url"] is not None
    place = Place(facts["url"], facts["offset"], facts["size_bytes"]) if there else None
    return Found(facts["key"], place, facts.get("text"), facts.get("origin"), cosine)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(record["version"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise IndexFault(f"{path} cannot be read ({error}); build the index again") from None
    if version > VERSION:
        raise IndexFault(f"{path} is of version {version}, this capfilt reads up to {VERSION}")
    return record
