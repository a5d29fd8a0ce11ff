"""A card shows what was decided, and cuts what is long; the page's tests read it as HTML."""

from typing import Any

import numpy as np
import pytest

from pipeline.report.card import MOST_TEXTS, make_card, sample_name
from pipeline.report.gallery import GalleryPick, PickedRow
from pipeline.report.thumbnail import Thumbnail
from shards.schema import JudgedTextRow

FACTS: PickedRow = {
    "shard": "00000",
    "index": 4,
    "key": "a b",
    "outcome": "kept",
    "reason": None,
    "detail": None,
    "text_reason": None,
    "web_text": None,
    "notes": None,
    "width": None,
    "height": None,
    "format": None,
    "url": None,
}
TEXT: JudgedTextRow = {"origin": "web", "keep": True, "reason": "kept", "itc": 0.3, "logprob": None}


def texts(*itms: float | None) -> list[JudgedTextRow]:
    return [
        {**TEXT, "text_no": n, "text": "a ring", "itm": itm, "truncated": False}
        for n, itm in enumerate(itms)
    ]


def card(rows: list[JudgedTextRow], **facts: Any) -> dict[str, Any]:
    row: Any = FACTS | facts
    return make_card(GalleryPick(row, rows), {"web": 0.7}, Thumbnail(missing="gone"))


@pytest.mark.parametrize(
    ("itm", "margin", "at"),
    [(0.9, 0.2, 90), (0.25, -0.45, 25), (1.5, 0.8, 100), (None, None, None), (np.nan, None, None)],
)
def test_a_margin_is_the_distance_from_the_threshold(
    itm: float | None, margin: float | None, at: float | None
) -> None:
    (text,) = card(texts(itm))["texts"]
    assert text["margin"] == (None if margin is None else pytest.approx(margin, abs=1e-6))
    assert (text["at"], text["limit_at"]) == (at, 70)


def test_a_threshold_is_compared_as_float32() -> None:
    (text,) = card(texts(float(np.float32(0.7))))["texts"]
    assert text["margin"] == 0


def test_what_is_too_much_is_cut_and_counted() -> None:
    long = card(texts(*[0.5] * (MOST_TEXTS + 3)), detail="x" * 999, url="u" * 999)
    assert (len(long["texts"]), long["more_texts"]) == (MOST_TEXTS, 3)
    assert (len(long["detail"]), len(long["url"])) == (161, 161)
    assert card([], web_text="w" * 999)["unscored"] == "w" * 300 + "…"


def test_a_sample_is_named_as_in_the_clean_tars_or_by_its_index() -> None:
    assert sample_name(FACTS).startswith("00000/")
    assert " " not in sample_name(FACTS)
    unnamed: PickedRow = {**FACTS, "key": None}
    assert sample_name(unnamed) == "00000, sample 4"


def test_a_size_is_told_where_it_is_known() -> None:
    assert card(texts(0.5), width=3, height=2, format="PNG")["size"] == "3 \u00d7 2 PNG"
    assert card(texts(0.5))["size"] == ""
