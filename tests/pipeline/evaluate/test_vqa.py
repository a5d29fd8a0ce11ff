"""Answers to questions: compared one by one with those that people gave."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from models.roles.vqa import VqaModel
from pipeline.evaluate.vqa import measure_vqa
from pipeline.evaluate.vqa_accuracy import accuracy
from shards.training.annotation_file import read_rows
from tests.support.small_evaluation import pixels_of

Change = Callable[[dict[str, Any]], dict[str, Any]]


ANSWERS = ["red", "circle", "yes", "no", "2", "left of"]


@pytest.mark.parametrize("answers", [[], ANSWERS])
def test_answers_are_compared_one_by_one(answering: Path, toy: Path, answers: list[str]) -> None:
    answerer = VqaModel.load(answering / "vqa", dtype="fp32")
    rows = read_rows(str(toy / "vqa" / "vqa.json"), ["question"])
    results: list[dict[str, Any]] = []
    measures = measure_vqa(
        answerer, rows, str(toy / "vqa"), 4, answers=answers, by="kind", results=results
    )
    alone = []
    for row in rows:
        pixels = pixels_of(answerer, toy / "vqa" / row["image"])
        if answers:
            alone.append(answerer.rank(pixels, [row["question"]], answers)[0][0].text)
        else:
            alone.append(answerer.answer(pixels, [row["question"]])[0].text)
    assert results == [
        {"question_id": row["question_id"], "answer": said}
        for row, said in zip(rows, alone, strict=True)
    ]
    scores = [accuracy(said, row["answer"]) for row, said in zip(rows, alone, strict=True)]
    assert measures["accuracy"] == pytest.approx(fmean(scores), abs=1e-9)
    assert (measures["questions"], measures["compared"], measures["left_out"]) == (
        len(rows),
    ) * 2 + ({},)
    for kind, mean in measures["by_kind"].items():
        own = [s for s, row in zip(scores, rows, strict=True) if row["kind"] == kind]
        assert mean == pytest.approx(fmean(own), abs=1e-9)


def test_questions_without_answers_are_answered_and_not_compared(
    answering: Path, toy: Path
) -> None:
    """The form of the test split, whose answers only the server knows."""
    answerer = VqaModel.load(answering / "vqa", dtype="fp32")
    rows = [
        {k: row[k] for k in ("image", "question", "question_id")}
        for row in read_rows(str(toy / "vqa" / "vqa.json"), ["question"])
    ]
    results: list[dict[str, Any]] = []
    found = measure_vqa(answerer, rows, str(toy / "vqa"), results=results)
    assert (found["questions"], found["compared"], found["accuracy"]) == (len(rows), 0, None)
    assert [one["question_id"] for one in results] == [row["question_id"] for row in rows]


SPOILED: dict[str, tuple[Change, str]] = {
    "missing": (lambda _: {"image": "gone.png"}, "image_missing"),
    "outside": (lambda _: {"image": "../../etc/passwd"}, "unsafe_member"),
    "no name": (lambda _: {"image": None}, "image_missing"),
    "no picture": (lambda _: {"image": "broken.png"}, "image_undecodable"),
    "blank": (lambda _: {"question": " "}, "text_empty"),
    "blank answers": (lambda _: {"answer": [" "] * 10}, "text_empty"),
    "objects": (lambda _: {"answer": [{"a": 3}] * 10}, "wrong_type"),
    "no question": (lambda _: {"question": None}, "null_value"),
    "no answer": (lambda _: {"answer": None}, "null_value"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_bad_row_is_counted_and_the_others_are_answered(
    answering: Path, toy: Path, name: str
) -> None:
    (toy / "vqa" / "broken.png").write_bytes(b"no picture")
    change, reason = SPOILED[name]
    good, bad, last, *_ = read_rows(str(toy / "vqa" / "vqa.json"), ["question"])
    answerer = VqaModel.load(answering / "vqa", dtype="fp32")
    results: list[dict[str, Any]] = []
    rows = [good, {**bad, **change(dict(bad))}, last]
    found = measure_vqa(answerer, rows, str(toy / "vqa"), results=results)
    assert found["left_out"] == {reason: 1}
    assert [one["question_id"] for one in results] == [good["question_id"], last["question_id"]]
