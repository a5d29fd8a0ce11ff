"""The judge against a slow and obvious one, which reads one row at a time."""

import math
import re
import struct
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.clean.judge import JudgeConfig, judge, odd_thresholds
from shards.schema import DECISIONS, TEXTS, arrow_rows

Row = dict[str, Any]


def as_float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def words_of(text: str) -> list[str]:
    return text.strip().lower().split()


def obvious_reason(row: Row, earlier: list[Row], config: JudgeConfig) -> str:
    """Judge one row, given those before it."""
    text = row["text"].strip().lower()
    if text == "":
        return "caption_empty" if row.get("author") else "caption_refused"
    if row["itm"] is None or not math.isfinite(row["itm"]):
        return "score_not_finite"
    for other in earlier:
        same_sample = (other["shard"], other["index"]) == (row["shard"], row["index"])
        if same_sample and other["text"].strip().lower() == text:
            return "duplicate_text"
    if len(text.split()) < config.min_words:
        return "text_too_short"
    if config.max_repeats is not None:
        words = re.findall(r"\w+", text)
        run = 0
        for word, following in pairwise(words):
            run = run + 1 if word == following else 0
            if run > config.max_repeats:
                return "repetitive"
    plain = re.sub(r"\W", " ", text).split()
    if any(banned.lower() in plain for banned in config.banned_words):
        return "banned_word"
    threshold = as_float32(config.threshold[row["origin"]])
    return "kept" if as_float32(row["itm"]) >= threshold else "itm_below_threshold"


def obvious(rows: list[Row], config: JudgeConfig) -> list[Row]:
    reasons = [obvious_reason(row, rows[:place], config) for place, row in enumerate(rows)]
    return [
        {name: row[name] for name in ("shard", "index", "text_no")}
        | {"keep": reason == "kept", "reason": reason}
        for row, reason in zip(rows, reasons, strict=True)
    ]


def judged(rows: list[Row], config: JudgeConfig) -> list[Row]:
    table = judge(arrow_rows(rows, TEXTS), config)
    assert table.schema.equals(DECISIONS, check_metadata=True)
    found: list[Row] = table.to_pylist()
    return found


def row(text: str = "a cat", itm: float | None = 0.9, **other: Any) -> Row:
    named = {"shard": "s", "index": 0, "text_no": 0, "origin": "web", "text": text, "itm": itm}
    named["author"] = "a" * 64
    return named | other


def reasons(rows: list[Row], **config: Any) -> list[str]:
    return [found["reason"] for found in judged(rows, JudgeConfig(**config))]


WORDS = st.sampled_from(["a", "A", "cat", "Cat", "dog", "bad", "Ünder", "ok", "b2"])
GAPS = st.sampled_from([" ", "  ", ", ", " - "])


@st.composite
def sentences(draw: st.DrawFn) -> str:
    parts = draw(st.lists(WORDS, max_size=6))
    joined = "".join(part + draw(GAPS) for part in parts)
    return draw(st.sampled_from(["", " "])) + joined


EDGES = [0.0, 0.5, 0.7, 0.1, 1.0, as_float32(0.7), np.nextafter(np.float32(0.7), np.float32(0)), -1]
ITM = st.sampled_from([*map(float, EDGES), math.nan, math.inf, -math.inf, None]) | st.floats(0, 1)
ROWS = st.lists(
    st.builds(
        row,
        text=sentences(),
        itm=ITM,
        shard=st.sampled_from(["s", "t"]),
        index=st.integers(0, 2),
        text_no=st.integers(0, 3),
        origin=st.sampled_from(["web", "synthetic", "imported"]),
        author=st.sampled_from(["a" * 64, None]),
    ),
    max_size=12,
)
CONFIGS = st.builds(
    JudgeConfig,
    threshold=st.fixed_dictionaries(
        {
            name: st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0])
            for name in ("web", "synthetic", "imported")
        }
    ),
    min_words=st.integers(1, 4),
    max_repeats=st.none() | st.integers(0, 2),
    banned_words=st.lists(st.sampled_from(["bad", "DOG", "ünder"]), max_size=2).map(tuple),
)


@settings(max_examples=400, deadline=None)
@given(ROWS, CONFIGS)
@example([], JudgeConfig())
def test_against_the_obvious_judge(rows: list[Row], config: JudgeConfig) -> None:
    assert judged(rows, config) == obvious(rows, config)


def test_no_texts() -> None:
    assert judged([], JudgeConfig(max_repeats=1, banned_words=("x",))) == []


def test_a_table_in_pieces() -> None:
    """Tables come in chunks, with another dictionary of texts in each."""
    rows = [row(f"text {n % 3}", (n % 10) / 10, index=n // 4, text_no=n % 4) for n in range(40)]
    pieces = [arrow_rows(rows[start : start + 7], TEXTS) for start in range(0, 40, 7)]
    table = judge(pa.concat_tables(pieces), JudgeConfig())
    assert table.to_pylist() == obvious(rows, JudgeConfig())


# --- Thresholds. ---


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 0.9])
def test_a_threshold_is_compared_in_float32(threshold: float) -> None:
    """0.7 as float32 is below 0.7: compared in float64, a score of just the threshold would go."""
    at = np.float32(threshold)
    around = [
        float(np.nextafter(at, np.float32(0))),
        float(at),
        float(np.nextafter(at, np.float32(1))),
    ]
    rows = [row(f"text {n}", itm) for n, itm in enumerate(around)]
    found = reasons(rows, threshold={"web": threshold})
    assert found == ["itm_below_threshold", "kept", "kept"]


def test_each_origin_has_its_own_threshold() -> None:
    rows = [row("one", 0.5, origin="web"), row("two", 0.5, origin="synthetic")]
    assert reasons(rows, threshold={"web": 0.4, "synthetic": 0.6}) == [
        "kept",
        "itm_below_threshold",
    ]


def test_an_origin_without_a_threshold_is_an_error() -> None:
    rows = [row(), row("b", origin="laion"), row("c", origin="cc3m")]
    with pytest.raises(ValueError, match=r"cc3m, laion.*synthetic, web.*judge\.threshold\.cc3m"):
        judge(arrow_rows(rows, TEXTS), JudgeConfig())


def test_a_threshold_not_given_is_the_default() -> None:
    assert JudgeConfig(threshold={"web": 0.3}).threshold == {"web": 0.3, "synthetic": 0.5}
    assert JudgeConfig().threshold == {"web": 0.5, "synthetic": 0.5}


@pytest.mark.parametrize(
    ("thresholds", "said"),
    [
        ({"web": 0.0, "synthetic": 1.0}, []),
        ({"web": 50}, ["'web' texts is 50,", "none of them is kept. For 50 % give 0.5."]),
        ({"web": 1.5}, ["'web' texts is 1.5,", "none of them is kept."]),
        ({"web": -0.1}, ["'web' texts is -0.1,", "it drops none of them."]),
        ({"web": 1e9, "synthetic": 70.5}, ["'synthetic' texts is 70.5,", "For 70.5 % give 0.705."]),
    ],
)
def test_a_threshold_that_no_score_crosses_is_told(
    thresholds: dict[str, float], said: list[str]
) -> None:
    told = odd_thresholds(thresholds)
    assert len(told) == sum(not 0 <= threshold <= 1 for threshold in thresholds.values())
    assert all(part in told[0] for part in said)
    assert not any("give" in line for line in told[1:])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_threshold_is_a_number(bad: float) -> None:
    with pytest.raises(ValidationError, match="threshold"):
        JudgeConfig(threshold={"web": bad})


@pytest.mark.parametrize("itm", [math.nan, math.inf, -math.inf, None])
def test_a_score_that_is_no_number_is_never_kept(itm: float | None) -> None:
    assert reasons([row(itm=itm)], threshold={"web": -1.0}) == ["score_not_finite"]


def test_a_score_of_another_table_decides_by_float32() -> None:
    config = JudgeConfig(by="siglip2.prob", threshold={"web": 0.1})
    given = np.array([0.1, 0.0999, np.nan], np.float32)
    rows = [row(str(n), None, index=n) for n in range(3)]
    said = judge(arrow_rows(rows, TEXTS), config, given)["reason"].to_pylist()
    assert said == ["kept", "score_below_threshold", "score_not_finite"]
    with pytest.raises(ValidationError, match="expected itm, itc, or NAME"):
        JudgeConfig(by="siglip2")


def test_the_first_origin_that_passes_is_preferred() -> None:
    """Synthetic texts stay only where the web's was dropped."""
    rows = [
        row("a", 0.9),
        row("b", 0.95, text_no=1, origin="synthetic"),
        row("c", 0.1, index=1),
        row("d", 0.8, index=1, text_no=1, origin="synthetic"),
        row("e", 0.7, index=1, text_no=2, origin="synthetic"),
    ]
    assert reasons(rows, prefer=("web",)) == [
        "kept",
        "not_preferred",
        "itm_below_threshold",
        "kept",
        "kept",
    ]
    assert "prefer" not in JudgeConfig().model_dump(mode="json")


# --- Texts. ---


def test_duplicates_are_those_of_one_sample() -> None:
    rows = [
        row("A cat"),
        row(" a CAT ", text_no=1, origin="synthetic"),
        row("a cat", index=1),
        row("a cat", shard="t"),
        row("a  cat", text_no=2, origin="synthetic"),
    ]
    assert reasons(rows) == ["kept", "duplicate_text", "kept", "kept", "kept"]


def test_a_duplicate_of_a_text_below_the_threshold_is_still_one() -> None:
    """So that a reason other than the threshold's holds at every threshold."""
    rows = [row(itm=0.1), row(itm=0.9, text_no=1, origin="synthetic")]
    assert reasons(rows) == ["itm_below_threshold", "duplicate_text"]


@pytest.mark.parametrize(
    ("text", "most", "repetitive"),
    [
        ("very cat", 0, False),
        ("very very cat", 0, True),
        ("very very cat", 1, False),
        ("very very very cat", 1, True),
        ("Very, very - VERY cat", 1, True),
        ("very very very cat", None, False),
        ("cat category", 0, False),
        ("a cat a cat", 0, False),
    ],
)
def test_max_repeats(text: str, most: int | None, repetitive: bool) -> None:
    assert reasons([row(text)], max_repeats=most) == ["repetitive" if repetitive else "kept"]


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("I like c++ a lot", True),
        ("c++", True),
        ("c", False),
        ("a BAD cat", True),
        ("a badge", False),
        ("not.bad.", True),
        ("stock  photo", False),
        ("a stock photo", True),
        ("see #ad", True),
        ("see #add", False),
    ],
)
def test_banned_words_are_whole_words(text: str, banned: bool) -> None:
    found = reasons([row(text)], banned_words=("c++", "bad", "Stock photo", "#ad"))
    assert found == ["banned_word" if banned else "kept"]


@pytest.mark.parametrize("word", ["", "  "])
def test_a_banned_word_is_not_empty(word: str) -> None:
    with pytest.raises(ValidationError, match="banned_words"):
        JudgeConfig(banned_words=("cat", word))


def test_hostile_texts_take_no_time() -> None:
    texts = ["a " * 5000, "a" * 10_000, "a" + "!" * 9_999, "ab " * 3000, "a!" * 5000, "x y " * 2500]
    started = time.perf_counter()
    reasons([row(t, text_no=n) for n, t in enumerate(texts)], max_repeats=9000, banned_words=("b",))
    assert time.perf_counter() - started < 2


def test_a_million_texts() -> None:
    """A new threshold over a run is a matter of seconds."""
    count = 1_000_000
    index = np.arange(count) // 2
    texts = [f"a picture of thing {n % 5003}" for n in range(count)]
    table = pa.table(
        {
            "shard": pa.array(["00000"] * count),
            "index": pa.array(index, pa.int32()),
            "text_no": pa.array(np.arange(count) % 2, pa.int16()),
            "origin": pa.array(["web", "synthetic"] * (count // 2)),
            "author": pa.array(["a" * 64] * count),
            "text": pa.array(texts),
            "itm": pa.array(np.random.default_rng(0).random(count, dtype=np.float32)),
        }
    )
    started = time.perf_counter()
    found = judge(table, JudgeConfig())
    taken = time.perf_counter() - started
    assert abs(np.asarray(found["keep"]).mean() - 0.5) < 0.01
    assert taken < 8, f"{taken:.1f} s"


def test_another_score_may_decide_and_the_default_leaves_no_trace() -> None:
    rows = [
        {"shard": "s", "index": n, "text_no": 0, "origin": "web", "text": f"a {n}", "itc": itc}
        for n, itc in enumerate([0.2, 0.4, float("nan"), None])
    ]
    config = JudgeConfig(by="itc", threshold={"web": 0.3})
    judged = judge(arrow_rows([row | {"itm": 0.9} for row in rows], TEXTS), config)
    expected = ["score_below_threshold", "kept", "score_not_finite", "score_not_finite"]
    assert judged["reason"].to_pylist() == expected
    assert "by" not in JudgeConfig().model_dump(mode="json")  # older fingerprints stay
    assert config.model_dump(mode="json")["by"] == "itc"
