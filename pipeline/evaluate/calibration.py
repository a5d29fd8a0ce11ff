"""How far a filter's probabilities can be trusted: curves, calibration, and a threshold.

Probabilities (N,) of a match, and labels (N,), true where text and picture belong together. What
the data does not define (labels of one kind only) is None, or an empty curve.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    precision_recall_curve,
    roc_curve,
)

BINS = 10  # of equal width, between 0 and 1

Chances = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Bin:
    """The texts whose probability lies in a bin: how many, what was said, and what is true."""

    count: int
    predicted: float
    right: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold, and the precision and recall of keeping what is at or above it."""

    threshold: float
    precision: float
    recall: float


def average_precision(chances: Chances, labels: Labels) -> float | None:
    """Compute the mean precision over the steps of recall; None without a positive."""
    return float(average_precision_score(labels, chances)) if labels.any() else None


def brier(chances: Chances, labels: Labels) -> float | None:
    """Compute the mean squared error of the probabilities."""
    return float(brier_score_loss(labels, chances, pos_label=True)) if len(labels) else None


def reliability(chances: Chances, labels: Labels) -> list[Bin]:
    """Compare what was said with what is true, in bins of equal width; empty ones are left out."""
    numbers = np.minimum((chances * BINS).astype(int), BINS - 1)
    chosen = (numbers == number for number in np.unique(numbers))
    return [
        Bin(int(mask.sum()), float(chances[mask].mean()), float(labels[mask].mean()))
        for mask in chosen
    ]


def calibration_error(bins: list[Bin]) -> float | None:
    """Compute the expected calibration error: the bins' mean distance, by their counts."""
    total = sum(bin_.count for bin_ in bins)
    if not total:
        return None
    return sum(bin_.count * abs(bin_.predicted - bin_.right) for bin_ in bins) / total


def precision_recall(chances: Chances, labels: Labels) -> list[Threshold]:
    """Compute precision and recall at every probability that occurs, from the lowest on."""
    if not labels.any():
        return []
    precisions, recalls, thresholds = precision_recall_curve(labels, chances)
    rows = zip(thresholds, precisions, recalls, strict=False)  # the last is that of keeping nothing
    return [Threshold(float(t), float(p), float(r)) for t, p, r in rows]


def roc(chances: Chances, labels: Labels) -> list[tuple[float, float]]:
    """Compute the shares of wrong and of right texts that pass, from the highest threshold on."""
    if labels.all() or not labels.any():
        return []
    wrong, right, _ = roc_curve(labels, chances, drop_intermediate=False)
    return [(float(x), float(y)) for x, y in zip(wrong, right, strict=True)]


def threshold_for(curve: list[Threshold], precision: float) -> Threshold | None:
    """Choose the lowest threshold with at least this precision; None if none reaches it.

    Lower ones keep more, so of all that are precise enough it has the highest recall. It is a
    choice made on this data: on new data expect a little less.
    """
    return next((row for row in curve if row.precision >= precision), None)
