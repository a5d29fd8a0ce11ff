"""Rules of views against a loop in plain Python: conditions, other scores, origins preferred."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clean.judge import JudgeConfig, judge
from pipeline.views.decide import Rules, redecide, reopened
from shards.run.scoring.expression import TEXT_COLUMNS, parse_condition, score_columns
from shards.schema import TEXTS, arrow_rows
from tests.pipeline.views.test_rejudge import CONFIG, SCORES, WORDS

COLUMNS = TEXT_COLUMNS | score_columns({"clip": ("p",)})
ROWS = st.lists(
    st.tuples(st.booleans(), st.sampled_from(WORDS), SCORES, SCORES), min_size=1, max_size=30
)


def tables_of(drawn: list[Any]) -> tuple[pa.Table, pa.Table]:
    """Make a texts table, two texts a sample, and what the rules read of it."""
    rows = [
        {
            "shard": "s",
            "index": number // 2,
            "text_no": number % 2,
            "origin": "web" if web else "synthetic",
            "text": text,
            "itm": itm,
        }
        for number, (web, text, itm, _) in enumerate(drawn)
    ]
    texts = arrow_rows(rows, TEXTS)
    clip = pa.array([p for *_, p in drawn], pa.float32())
    return texts, texts.select(["origin", "itm"]).append_column("clip.p", clip)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.floats(0, 1, width=32))
def test_a_condition_and_another_score(drawn: list[Any], least: float) -> None:
    texts, facts = tables_of(drawn)
    own = judge(texts, CONFIG)
    where = parse_condition("clip.p >= 0.5 or origin == 'web'", COLUMNS)
    rules = Rules({"synthetic": least}, COLUMNS["clip.p"], where)
    decided = redecide(facts, reopened(texts, own, CONFIG), rules).to_pylist()
    without = JudgeConfig.model_validate({**CONFIG.model_dump(), "threshold": {"web": 0}})
    scoreless = texts.set_column(6, "itm", pa.array([1.0] * len(texts), pa.float32()))
    of_text = judge(scoreless, without).to_pylist()  # what is wrong with the text alone
    for row, text, after in zip(drawn, of_text, decided, strict=True):
        web, p = row[0], row[3]
        is_number = p is not None and math.isfinite(p)
        passes = (web or (is_number and np.float32(p) >= 0.5)) and (
            web or (is_number and np.float32(p) >= np.float32(least))
        )
        if text["reason"] != "kept":
            expected = text["reason"]
        elif passes:
            expected = "kept"
        else:
            bad = p is not None and not math.isfinite(p)
            expected = "score_not_finite" if bad else "score_below_threshold"
        assert (after["reason"], after["keep"]) == (expected, expected == "kept")


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_only_the_first_origin_that_passes_stays(drawn: list[Any]) -> None:
    texts, facts = tables_of(drawn)
    own = judge(texts, CONFIG)
    limits = {"web": 0.5, "synthetic": 0.6}
    all_of_them = redecide(facts, own, Rules(limits)).to_pylist()
    first = redecide(facts, own, Rules(limits, prefer=("web",))).to_pylist()
    origins = texts["origin"].to_pylist()
    with_web = {
        row["index"]
        for row, origin in zip(all_of_them, origins, strict=True)
        if row["keep"] and origin == "web"
    }
    for row, origin, after in zip(all_of_them, origins, first, strict=True):
        if row["keep"] and origin != "web" and row["index"] in with_web:
            assert (after["keep"], after["reason"]) == (False, "not_preferred")
        else:
            assert after == row


@pytest.mark.parametrize("text", ["not clip.p >= 0.5", "clip.p < 0.5", "clip.p - 1 < 0"])
def test_what_is_missing_or_not_finite_passes_nothing(text: str) -> None:
    drawn = [(True, "a cat", 0.9, p) for p in (0.25, None, float("nan"), float("-inf"))]
    texts, facts = tables_of([row for row in drawn for _ in "ab"])
    own = judge(texts, CONFIG)
    decided = redecide(facts, own, Rules(where=parse_condition(text, COLUMNS)))
    assert decided["reason"].to_pylist()[::2] == [
        "kept",
        "score_below_threshold",
        "score_not_finite",
        "score_not_finite",
    ]
