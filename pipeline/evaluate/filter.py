"""Evaluate a filter: does it keep what is right?"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.roles.filter import Filter
from pipeline.evaluate import calibration, metrics
from pipeline.evaluate.pairs import USUAL, EvaluateConfig, LabelledPair, batches
from shards.training.left_out import LeftOut

Label = Callable[[LabelledPair], bool | None]
"""Tells whether a pair's texts belong to its picture; None where that cannot be told."""

NO_LABEL = "label_missing"


def open_filter(folder: str | Path, config: EvaluateConfig = USUAL) -> Filter:
    """Load a filter folder."""
    return Filter.load(
        folder, max_tokens=config.max_tokens, dtype=config.dtype, device=config.device
    )


def measure_filter(
    scorer: Filter,
    pairs: Iterable[LabelledPair],
    batch_size: int = 32,
    *,
    label: Label,
    threshold: float = 0.5,
    precision: float | None = None,
    curves: bool = False,
) -> dict[str, Any]:
    """Compare ITM probabilities with labels: which texts are right, and which does it keep?

    `label` judges a pair, with all its texts. `noise_before` and `noise_after` are the shares of
    wrong texts among all and among the kept; `noise_ratio` is the share that is filtered out, which
    the paper calls so. Texts without a finite score, as many as `score_not_finite`, are not kept,
    and have no part in `roc_auc` and the curves. For a wanted `precision`, `chosen` is the lowest
    threshold that reaches it here. `curves` adds a row for each threshold: precision and recall,
    ROC, and calibration in bins.
    """
    labelled = (
        pair if label(pair) is not None else replace(pair, reason=pair.reason or NO_LABEL)
        for pair in pairs
    )
    left_out = LeftOut()
    scores: list[float] = []
    labels: list[bool] = []
    images = 0
    for batch, pictures in batches(labelled, scorer.preprocess, batch_size, left_out):
        images += len(batch)
        scored = scorer.score(pictures, [pair.texts for pair in batch])
        for pair, pair_scores in zip(batch, scored, strict=True):
            scores += [score.itm for score in pair_scores]
            labels += [bool(label(pair))] * len(pair_scores)
    itm, truth = np.array(scores), np.array(labels, dtype=bool)
    finite = np.isfinite(itm)
    counts = {"images": images, "texts": len(scores), "left_out": left_out}
    trust = _calibrated(itm[finite], truth[finite], precision, curves)
    return counts | _filtered(itm, truth, threshold) | trust


def _calibrated(
    itm: NDArray[np.float64], labels: NDArray[np.bool_], precision: float | None, curves: bool
) -> dict[str, Any]:
    """Compute how far finite probabilities can be trusted."""
    bins = calibration.reliability(itm, labels)
    numbers: dict[str, Any] = {
        "average_precision": calibration.average_precision(itm, labels),
        "brier": calibration.brier(itm, labels),
        "calibration_error": calibration.calibration_error(bins),
    }
    rows = calibration.precision_recall(itm, labels)
    if precision is not None:
        chosen = calibration.threshold_for(rows, precision)
        numbers["chosen"] = None if chosen is None else asdict(chosen)
    if curves:
        numbers["curves"] = {
            "calibration": [asdict(bin_) for bin_ in bins],
            "precision_recall": [asdict(row) for row in rows],
            "roc": calibration.roc(itm, labels),
        }
    return numbers


def _filtered(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], threshold: float
) -> dict[str, Any]:
    kept, finite = metrics.at_threshold(scores, threshold), np.isfinite(scores)
    precision = metrics.precision(kept, labels)
    share = float(kept.mean()) if len(kept) else None
    return {
        "threshold": threshold,
        "roc_auc": metrics.roc_auc(scores[finite], labels[finite]),
        "precision": precision,
        "recall": metrics.recall(kept, labels),
        "kept": share,
        "noise_ratio": None if share is None else 1 - share,
        "noise_before": 1 - float(labels.mean()) if len(labels) else None,
        "noise_after": None if precision is None else 1 - precision,
        "score_not_finite": int((~finite).sum()),
    }
