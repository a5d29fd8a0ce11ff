"""Conditions: what is read, what is refused and how, and that nothing is ever evaluated."""

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.run.scoring.expression import (
    MOST_CHARACTERS,
    SAMPLE_COLUMNS,
    TEXT_COLUMNS,
    Column,
    Constant,
    ExpressionError,
    Operation,
    parse_condition,
    score_columns,
)

SCORES = score_columns({"siglip2": ("cosine", "prob"), "taste": ("value",)})
COLUMNS = TEXT_COLUMNS | SAMPLE_COLUMNS | SCORES


def test_it_becomes_a_tree_of_names_and_constants() -> None:
    read = parse_condition("itm>=.5 and  not siglip2.prob < 0.2", COLUMNS)
    itm, prob = TEXT_COLUMNS["itm"], Column("siglip2.prob", "number", is_score=True)
    high = Operation(">=", (itm, Constant(0.5)))
    low = Operation("<", (prob, Constant(0.2)))
    assert read.root == Operation("and", (high, Operation("not", (low,))))
    assert read.columns == (itm, prob)
    assert read.text == "itm >= 0.5 and (not siglip2.prob < 0.2)"
    assert parse_condition(read.text, COLUMNS) == read


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("0.2 <= itm < .7 or not truncated", ["itm", "truncated"]),
        ("format in ('png', 'gif') and aspect <= 3", ["format", "aspect"]),
        ('"dog" in text and "cat" not in text', ["text"]),
        ("taste > 5", ["taste.value"]),  # the only score of its set
        ("(itm + siglip2.prob) / 2 >= 0.5", ["itm", "siglip2.prob"]),
        ("-1 < itc < +1 and logprob is not None", ["itc", "logprob"]),
        ("text_chars >= 5 or text_words > 2 or bytes > 9", ["text_chars", "text_words", "bytes"]),
    ],
)
def test_what_the_language_has(text: str, columns: list[str]) -> None:
    assert [column.name for column in parse_condition(text, COLUMNS).columns] == columns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("siglp2.prob > 1", "did you mean siglip2.prob?"),
        ("itn > 1", "did you mean itm?"),
        ("siglip2 > 1", "did you mean siglip2.cosine or siglip2.prob?"),
        ("itm = 0.5", "equal is =="),
        ("itm > 0 AND itc > 0", "AND is written and"),
        ("itm", "is a number, and no condition"),
        ("", "is no condition"),
        ("itm > ) 2", "is no condition: character 7"),
        ("1 < 2", "names no score and no column"),
        ("itm > 0 or True", "True decides nothing"),
        ("itm >= 'a'", "compares a number with a text"),
        ("origin < 'b'", "only numbers are more or less"),
        ("itm and itc", "itm is a number, where"),
        ("itm is 3", "None alone"),
        ("1 in (1, 2)", "expected such as format in"),
        ("origin in ()", "expected such as format in"),
        ("text in 'abc'", 'expected such as "word" in text'),
        ("itm > 1e999", "has no meaning here"),
        ("itm > 9**9**9", "has no meaning here"),
        ("itm > 0\0", "is no condition"),
        ("open('/etc/passwd') == text", "has no meaning here"),
        ("().__class__ == text", "has no meaning here"),
        ("[x for x in text] == text", "has no meaning here"),
        ("(lambda: itm)() > 1", "has no meaning here"),
        ("f'{itm}' == text", "has no meaning here"),
        ("(itm := 1) > 0", "has no meaning here"),
        ("not " * 40 + "truncated", "within each other"),
        (" or ".join(["itm > 0"] * 100), "more than 200 parts"),
        ("(" * 250 + "itm" + ")" * 250, "is no condition"),
        ("itm > 0" + " " * MOST_CHARACTERS, "characters; 2,000 at most"),
    ],
)
def test_what_is_refused_is_told_in_one_message(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as told:
        parse_condition(text, COLUMNS)
    assert message in str(told.value)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 1_000


@given(st.text(alphabet="itmorand()[]<>=.'\"+-*/ 019_,:\n\\", max_size=60))
def test_whatever_is_typed_is_a_condition_or_one_error(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        assert parse_condition(text, COLUMNS).root.kind == "flag"


def test_nothing_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(os, "system", called.append)
    with pytest.raises(ExpressionError):
        parse_condition("__import__('os').system('x') == 0", COLUMNS)
    assert called == []
