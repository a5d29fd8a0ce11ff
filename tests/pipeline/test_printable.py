"""What people read must not move their cursor, turn their reading, or mislead by rounding."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.printable import cut, margin, number_of, percent, score, size, tally, visible


@given(st.text())
def test_nothing_hidden_is_left(text: str) -> None:
    shown = visible(text)
    for character in shown:
        hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        assert not hidden or character in "\u200c\u200d"


@given(st.text(st.characters(categories=("L", "N", "P", "S", "M"))))
def test_letters_and_signs_stay_as_they_are(text: str) -> None:
    assert visible(text) == text


def test_what_is_counted_is_named() -> None:
    assert [number_of(n, "shard") for n in (0, 1, 2000)] == ["0 shards", "1 shard", "2,000 shards"]
    assert tally({"a": 1, "b": 2400, "c": 1}) == "b 2,400, a 1, c 1"


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 10, "0.0 %"),
        (10, 10, "100.0 %"),
        (1, 3, "33.3 %"),
        (1, 100_000, "< 0.1 %"),
        (99_999, 100_000, "> 99.9 %"),
        (0, 0, "\u2013"),
    ],
)
def test_shares(part: int, whole: int, words: str) -> None:
    assert percent(part, whole) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.25, "+0.2500"),
        (-0.25, "\u22120.2500"),
        (-3e-8, "\u22123e\u221208"),
        (0.0, "+0.0000"),
        (float("nan"), ""),
        (None, ""),
    ],
)
def test_distances(value: float | None, words: str) -> None:
    assert margin(value) == words


def test_scores_sizes_and_cuts() -> None:
    assert [score(x) for x in (None, float("inf"), -0.5)] == ["none", "not finite", "\u22120.5000"]
    assert [size(x) for x in (999, 1500, 2_340_000)] == ["999 bytes", "1.5 kB", "2.3 MB"]
    assert [cut("abcd", n) for n in (3, 4)] == ["abc…", "abcd"]
    assert cut(None, 3) is None
