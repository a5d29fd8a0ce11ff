"""Labels by their key in the sidecar, and what is said where no sample has it."""

import pytest

from flows.cli.evaluate.labels import Labels, NoLabel
from pipeline.evaluate import LabelledPair

PAIRS = [
    LabelledPair("00000/a", b"", (), {"toy": {"is_noisy": True, "n": 1}, "right": False}),
    LabelledPair("00000/b", b"", (), {"toy": {"is_noisy": False}, "right": "yes"}),
    LabelledPair("00000/c", b"", ()),
]


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("toy.is_noisy", [True, False, None]),
        ("right", [False, None, None]),
        ("toy.n", [None] * 3),
        ("toy", [None] * 3),
        ("right.more", [None] * 3),
    ],
)
def test_a_label_is_true_or_false_or_none(key: str, found: list[bool | None]) -> None:
    assert list(map(Labels(key), PAIRS)) == found


def test_a_key_that_no_sample_has_is_told_with_those_that_are_there() -> None:
    labels = Labels("is_noisy")
    for pair in PAIRS:
        labels(pair)
    with pytest.raises(NoLabel, match=r"in: no sample .*'is_noisy'.*: right, toy\.is_noisy$"):
        labels.check_found(0, "in")
    labels.check_found(1, "in")
    Labels("is_noisy").check_found(0, "in")  # no sidecar was read: that is told elsewhere
