"""What is said of an evaluation's rows: those left out, or that there is nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli.evaluate.outcome import NothingEvaluated, check_direction, check_outcome, keep
from shards.training.left_out import LeftOut, Unusable


def numbers(count: int, *reasons: str) -> dict[str, Any]:
    left_out = LeftOut()
    for reason in reasons:
        left_out[reason] += 1
    return {"images": count, "left_out": left_out}


def test_nothing_is_said_where_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    check_outcome(numbers(3), "images", "a.json")
    assert capsys.readouterr() == ("", "")


def test_what_is_left_out_is_told_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = ("text_empty", Unusable("image_missing", "a\x1b[2J.jpg"), "image_missing")
    check_outcome(numbers(3, *reasons), "images", "a.json")
    out, said = capsys.readouterr()
    assert out == ""  # numbers alone stand there
    assert said.startswith("capfilt: left out of a.json: image_missing 2 (the first: a")
    assert "text_empty 1" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("reasons", "advice"),
    [
        (["image_missing"] * 2 + ["text_empty"], "--images FOLDER"),
        (["label_missing"], "--label KEY"),
        (["format_not_allowed"], "convert the pictures"),
        (["shard_not_tar"], "mend what is told here"),
        ([], "mend what is told here"),
    ],
)
def test_where_all_is_left_out_it_is_an_error(reasons: list[str], advice: str) -> None:
    with pytest.raises(NothingEvaluated) as raised:
        check_outcome(numbers(0, *reasons), "images", "a.json")
    assert raised.value.exit_code == 2
    assert f"a.json: 0 of {len(reasons)} rows can be used" in str(raised.value)
    assert advice in str(raised.value).partition("What to do: ")[2]


def test_results_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    keep(None, [{"a": 1}])
    keep(tmp_path / "r.json", [{"a": 1}])
    assert json.loads((tmp_path / "r.json").read_text()) == [{"a": 1}]


@pytest.mark.parametrize(("auc", "told"), [(0.27, True), (0.5, False), (0.9, False), (None, False)])
def test_labels_that_mean_the_opposite_are_told(
    capsys: pytest.CaptureFixture[str], auc: float | None, told: bool
) -> None:
    check_direction({"roc_auc": auc})
    assert ("roc_auc is 0.270: wrong texts have higher" in capsys.readouterr().err) == told
