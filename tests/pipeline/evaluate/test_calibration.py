"""A filter's curves and calibration, against slow loops over every threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate import calibration

ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.05, 0.3, 0.31, 0.5, 0.99, 1.0]), st.booleans()), min_size=1
)


def split(rows: list[tuple[float, bool]]) -> tuple[calibration.Chances, calibration.Labels]:
    return np.array([one for one, _ in rows]), np.array([label for _, label in rows])


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_curves_count_what_each_threshold_keeps(rows: list[tuple[float, bool]]) -> None:
    chances, labels = split(rows)
    curve = calibration.precision_recall(chances, labels)
    if not labels.any():
        assert curve == []
        return
    assert [one.threshold for one in curve] == sorted(set(chances.tolist()))
    for one in curve:
        kept = chances >= one.threshold
        assert one.precision == pytest.approx(labels[kept].mean(), abs=1e-9)
        assert one.recall == pytest.approx(labels[kept].sum() / labels.sum(), abs=1e-9)
    points = calibration.roc(chances, labels)
    expected = (
        [
            ((chances >= t)[~labels].mean(), (chances >= t)[labels].mean())
            for t in sorted(set(chances.tolist()), reverse=True)
        ]
        if not labels.all()
        else []
    )
    assert np.array(points[1:]) == pytest.approx(np.array(expected))
    assert points[:1] == ([(0.0, 0.0)] if expected else [])


@settings(max_examples=50, deadline=None)
@given(ROWS, st.sampled_from([0.0, 0.5, 0.8, 1.0]))
def test_the_threshold_is_the_lowest_that_is_precise_enough(
    rows: list[tuple[float, bool]], precision: float
) -> None:
    chances, labels = split(rows)
    found = calibration.threshold_for(calibration.precision_recall(chances, labels), precision)
    enough = [t for t in sorted(set(chances.tolist())) if labels[chances >= t].mean() >= precision]
    if found is None:
        assert not labels.any() or not enough
    else:
        assert found.threshold == enough[0]


def test_calibration_compares_what_is_said_with_what_is_true() -> None:
    chances = np.array([0.05, 0.08, 0.95, 1.0, 0.5])
    labels = np.array([False, True, True, True, False])
    bins = calibration.reliability(chances, labels)
    assert [(b.count, b.right) for b in bins] == [(2, 0.5), (1, 0.0), (2, 1.0)]
    assert [b.predicted for b in bins] == pytest.approx([0.065, 0.5, 0.975])
    expected = (2 * abs(0.065 - 0.5) + 0.5 + 2 * 0.025) / 5
    assert calibration.calibration_error(bins) == pytest.approx(expected, abs=1e-9)
    squares = (0.05**2 + 0.92**2 + 0.05**2 + 0 + 0.5**2) / 5
    assert calibration.brier(chances, labels) == pytest.approx(squares, abs=1e-9)


def test_perfect_and_reversed_scores() -> None:
    labels = np.array([True] * 5 + [False] * 5)
    chances = np.linspace(1, 0, 10)
    assert calibration.average_precision(chances, labels) == 1
    of_the_worst = calibration.average_precision(1 - chances, labels)
    assert of_the_worst is not None
    assert of_the_worst < 0.5
    best = calibration.threshold_for(calibration.precision_recall(chances, labels), 1.0)
    assert best is not None
    assert (best.precision, best.recall) == (1, 1)


def test_nothing_to_judge_has_no_numbers() -> None:
    chances, labels = np.array([]), np.array([], dtype=bool)
    assert calibration.average_precision(chances, labels) is None
    assert calibration.brier(chances, labels) is None
    assert calibration.reliability(chances, labels) == []
    assert calibration.calibration_error([]) is None
    assert calibration.precision_recall(chances, labels) == []
    assert calibration.roc(chances, labels) == []
