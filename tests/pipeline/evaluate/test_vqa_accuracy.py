"""VQA accuracy is the official evaluator's, on every case of its own making."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluate.vqa_accuracy import CONTRACTIONS, accuracy, normalise


@pytest.fixture(scope="module")
def reference(data_dir: Path) -> dict[str, Any]:
    return _read(data_dir / "metrics" / "vqa_accuracy.json")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_answers_are_normalised_as_by_the_official_evaluator(reference: dict[str, Any]) -> None:
    cases = reference["normalisation"]
    assert cases
    found = {case["answer"]: normalise(case["answer"]) for case in cases}
    assert found == {case["answer"]: case["normalised"] for case in cases}


def test_accuracy_is_the_official_one(reference: dict[str, Any]) -> None:
    cases = reference["accuracy"]
    assert cases
    for case in cases:
        found = 100 * accuracy(case["prediction"], case["answers"])
        assert found == pytest.approx(case["accuracy_percent"], abs=1e-6), case


def test_the_contractions_are_the_official_ones(data_dir: Path) -> None:
    """But for those with a capital, which no lower-case word can be, and those that change none."""
    listed = _read(data_dir / "metrics" / "vqa_tables.json")["contractions"]
    told = {short: word for short, word in listed.items() if short not in (word, short.title())}
    assert {k: word for k, word in told.items() if k == k.lower()} == CONTRACTIONS


@pytest.mark.parametrize(
    ("answer", "given", "expected"),
    [
        ("red", ["red"] * 10, 1.0),
        ("Red", ["red"] * 10, 0.0),  # where all agree, nothing is normalised
        ("Red.", ["red"] * 9 + ["blue"], 1.0),
        ("red", ["red"] + ["blue"] * 9, 0.3),  # one other of three, but for the one itself
        ("red", ["red"] * 3 + ["blue"] * 7, 0.9),  # as the paper of VQA v2 says of three
        ("", ["red"] * 10, 0.0),
    ],
)
def test_three_others_make_an_answer_right(answer: str, given: list[str], expected: float) -> None:
    assert accuracy(answer, given) == pytest.approx(expected, abs=1e-9)


def test_a_question_that_nobody_answered_has_no_accuracy() -> None:
    with pytest.raises(ValueError, match="there are none"):
        accuracy("red", [])
