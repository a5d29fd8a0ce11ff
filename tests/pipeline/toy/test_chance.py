"""Chance in the toy world, on rows small enough to count by hand."""

import json
from pathlib import Path

import pytest

from pipeline.toy.chance import most_common, own_text, true_of_others
from pipeline.toy.tasks import ToyTasksConfig, write_captions


def test_chance_is_counted() -> None:
    captions = [{"caption": ["a", "b"]}, {"caption": ["c", "d", "e", "a"]}]
    assert own_text(captions) == pytest.approx(3 / 5)
    rows = [
        {"kind": "colour", "answer": ["red"] * 9 + ["blue"]},
        {"kind": "colour", "answer": ["blue"] * 10},
        {"kind": "count", "answer": ["1"] * 10},
    ]
    assert most_common(rows) == {"colour": 11 / 20, "count": 1.0}


def test_few_captions_are_true_of_another_picture(tmp_path: Path) -> None:
    path = write_captions(tmp_path, ToyTasksConfig(samples=80, image_px=32, kinds=4))
    assert 0 < true_of_others(json.loads(path.read_text())) < 0.15
