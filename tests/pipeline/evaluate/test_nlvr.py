"""Statements about two pictures: judged one by one."""

from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from models.roles.nlvr import NlvrModel
from pipeline.evaluate.nlvr import measure_nlvr
from shards.training.annotation_file import read_rows
from tests.support.small_evaluation import pixels_of


def test_statements_are_judged_one_by_one(answering: Path, toy: Path) -> None:
    reasoner = NlvrModel.load(answering / "nlvr", dtype="fp32")
    rows = read_rows(str(toy / "nlvr" / "nlvr.json"), ["sentence"])
    rows += [{**rows[0], "label": str(rows[0]["label"] != "True")}]  # one sentence twice
    measures = measure_nlvr(reasoner, rows, str(toy / "nlvr"), 3)
    judged = []
    for row in rows:
        left, right = (pixels_of(reasoner, toy / "nlvr" / name) for name in row["images"])
        (chance,) = reasoner.reason(left, right, [row["sentence"]])
        judged.append((row["sentence"], (chance > 0.5) == (row["label"] == "True")))
    groups = groupby(sorted(judged), key=lambda verdict: verdict[0])
    whole = [all(right for _, right in own) for _, own in groups]
    assert measures == {
        "statements": 8,
        "left_out": {},
        "accuracy": pytest.approx(fmean(right for _, right in judged)),
        "consistency": pytest.approx(fmean(whole)),
    }


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"images": ["gone.png", "gone.png"]}, "image_missing"),
        ({"images": ["one.png"]}, "wrong_type"),
        ({"label": "maybe"}, "wrong_type"),
        ({"sentence": ""}, "text_empty"),
        ({"sentence": ["a"]}, "wrong_type"),
    ],
)
def test_a_bad_statement_is_counted(
    answering: Path, toy: Path, changed: dict[str, Any], reason: str
) -> None:
    first, *rest = read_rows(str(toy / "nlvr" / "nlvr.json"), ["sentence"])
    reasoner = NlvrModel.load(answering / "nlvr", dtype="fp32")
    found = measure_nlvr(reasoner, [{**first, **changed}, {}, *rest], str(toy / "nlvr"))
    assert found["left_out"] == {reason: 1, "missing_column": 1}
    assert found["statements"] == len(rest)
