"""The card of one sample on a page: its picture, its texts with scores, and what was decided."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.printable import cut
from pipeline.report.gallery import GalleryPick
from pipeline.report.thumbnail import Thumbnail
from shards.naming import encode_name
from shards.schema import JudgedTextRow, SampleRow

if TYPE_CHECKING:
    from pipeline.report.dropped import DroppedText

MOST_TEXTS = 12
_TEXT_SHOWN = 300  # characters
_DETAIL_SHOWN = 160


def make_card(
    pick: GalleryPick,
    thresholds: dict[str, float],
    thumbnail: Thumbnail,
    dropped: "Mapping[int, DroppedText] | None" = None,
) -> dict[str, Any]:
    """Put together what a page shows of a sample; the longest texts are cut.

    `dropped` explains texts, by their numbers: the words that sank their match.
    """
    facts, explained = pick.facts, dropped or {}
    texts = [
        _text(row, thresholds.get(row["origin"]))
        | {
            "dropped": explained.get(row["text_no"]),
            "compared": pick.compared.get(row["text_no"], []),
        }
        for row in pick.texts[:MOST_TEXTS]
    ]
    return {
        "picture": thumbnail,
        "outcome": facts["outcome"],
        "name": sample_name(facts),
        "typed": facts["key"] is not None,
        "index": facts["index"],
        "reason": facts["reason"],
        "detail": cut(facts["detail"], _DETAIL_SHOWN),
        "text_reason": facts["text_reason"],
        "unscored": None if pick.texts else cut(facts["web_text"], _TEXT_SHOWN),
        "notes": facts["notes"] or [],
        "size": _size(facts),
        "url": cut(facts["url"], _DETAIL_SHOWN),
        "texts": texts,
        "more_texts": len(pick.texts) - len(texts),
    }


def sample_name(facts: SampleRow) -> str:
    """Name a sample as clean shards do, SHARD/KEY; one whose key damage hides, by its index."""
    if facts["key"] is None:
        return f"{facts['shard']}, sample {facts['index']}"
    return f"{facts['shard']}/{encode_name(facts['key'])}"


def _text(row: JudgedTextRow, threshold: float | None) -> dict[str, Any]:
    itm = row["itm"]
    finite = itm if itm is not None and math.isfinite(itm) else None
    limit = None if threshold is None else float(np.float32(threshold))
    return {
        "origin": row["origin"],
        "text": cut(row["text"], _TEXT_SHOWN),
        "keep": row["keep"],
        "reason": row["reason"],
        "itm": itm,
        "margin": None if finite is None or limit is None else finite - limit,
        "at": None if finite is None else _percent(finite),
        "limit_at": None if limit is None or not 0 <= limit <= 1 else _percent(limit),
        "itc": row["itc"],
        "logprob": row["logprob"],
        "truncated": bool(row["truncated"]),
    }


def _percent(probability: float) -> float:
    return round(100 * min(max(probability, 0.0), 1.0), 2)


def _size(facts: SampleRow) -> str:
    if facts["width"] is None:
        return ""
    return f"{facts['width']} \u00d7 {facts['height']} {facts['format'] or ''}".strip()
