"""Counts of what is left out, and the first example of each reason."""

import json
import pickle
from collections import Counter

import pytest

from shards.reasons import SampleReason
from shards.training.left_out import LeftOut, Unusable, excerpt


def test_the_first_example_of_a_reason_is_kept() -> None:
    left_out = LeftOut()
    for reason in (
        "text_empty",
        Unusable(SampleReason.IMAGE_MISSING, "a.jpg"),
        Unusable("image_missing", "b.jpg"),
        "text_empty",
        Unusable("text_empty", "row 3"),
    ):
        left_out[reason] += 1
    assert left_out == {"image_missing": 2, "text_empty": 3}
    assert left_out.examples == {"image_missing": "a.jpg", "text_empty": "row 3"}
    assert str(left_out) == "text_empty 3 (the first: row 3); image_missing 2 (the first: a.jpg)"
    assert json.loads(json.dumps(left_out)) == {"image_missing": 2, "text_empty": 3}
    assert {type(reason) for reason in left_out} == {str}


def test_an_unusable_counts_as_its_reason() -> None:
    reason = Unusable("text_empty", "row 1")
    assert reason == "text_empty"
    assert Counter([reason, "text_empty"]) == {"text_empty": 2}


def test_counts_of_two_parts_are_joined() -> None:
    first, second = LeftOut(), LeftOut({"b": 2})
    first[Unusable("a", "one")] += 1
    second[Unusable("a", "two")] += 4
    second[Unusable("c", "three")] += 1
    first.join(second)
    assert first == {"a": 5, "b": 2, "c": 1}
    assert first.examples == {"a": "one", "c": "three"}
    assert str(LeftOut()) == "nothing"


def test_a_source_with_counts_travels_to_workers() -> None:
    left_out = LeftOut({"a": 2})
    assert pickle.loads(pickle.dumps(left_out)) == {"a": 2}


@pytest.mark.parametrize("value", ["x" * 10**7, {"a": ["y" * 10**6] * 10**4}, [[[[[[3]]]]]] * 9999])
def test_an_excerpt_is_short(value: object) -> None:
    assert len(excerpt(value)) < 600
