"""Evaluate a filter: does it keep what is right?"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.roles.filter import Filter
from pipeline.evaluate import calibration, metrics
from pipeline.evaluate.pairs import USUAL, EvaluateConfig, LabelledPair, batches

Label = Callable[[LabelledPair], bool | None]
"""Tells whether a pair's texts belong to its picture; None where that cannot be told."""

NO_LABEL = "label_missing"


def evaluate_filter(
    folder: str | Path,
    pairs: Iterable[LabelledPair],
    config: EvaluateConfig = USUAL,
    *,
    threshold: float = 0.5,
    label: Label | None = None,
    precision: float | None = None,
    curves: bool = False,
) -> dict[str, Any]:
    """Evaluate a filter folder; see `measure_filter`."""
    scorer = Filter.load(
        folder, max_tokens=config.max_tokens, dtype=config.dtype, device=config.device
    )
    return measure_filter(
        scorer,
        pairs,
        config.batch_size,
        threshold=threshold,
        label=label,
        precision=precision,
        curves=curves,
    )


def measure_filter(
    scorer: Filter,
    pairs: Iterable[LabelledPair],
    batch_size: int = 32,
    *,
    threshold: float = 0.5,
    label: Label | None = None,
    precision: float | None = None,
    curves: bool = False,
) -> dict[str, Any]:
    """Compare ITM probabilities with labels: which texts are right, and which does it keep?

    `label` (default: `toy_label`) judges a pair, with all its texts. `noise_before` and
    `noise_after` are the shares of wrong texts among all and among the kept; `noise_ratio` is the
    share that is filtered out, which the paper calls so. Texts without a finite score, as many as
    `score_not_finite`, are not kept, and have no part in `roc_auc` and the curves. For a wanted
    `precision`, `chosen` is the lowest threshold that reaches it here. `curves` adds a row for each
    threshold: precision and recall, ROC, and calibration in bins.
    """
    told = label or toy_label
    known = (pair if told(pair) is not None else _without_label(pair) for pair in pairs)
    left_out: Counter[str] = Counter()
    scores: list[float] = []
    labels: list[bool] = []
    images = 0
    for batch, pictures in batches(known, scorer.preprocess, batch_size, left_out):
        images += len(batch)
        found = scorer.score(pictures, [pair.texts for pair in batch])
        for pair, own in zip(batch, found, strict=True):
            scores += [score.itm for score in own]
            labels += [bool(told(pair))] * len(own)
    counts = {"images": images, "texts": len(scores), "left_out": dict(left_out)}
    chances, truth = np.array(scores), np.array(labels, dtype=bool)
    finite = np.isfinite(chances)
    sure = chances[finite], truth[finite]
    bins = calibration.reliability(*sure)
    trust: dict[str, Any] = {
        "average_precision": calibration.average_precision(*sure),
        "brier": calibration.brier(*sure),
        "calibration_error": calibration.calibration_error(bins),
    }
    rows = calibration.precision_recall(*sure)
    if precision is not None:
        chosen = calibration.threshold_for(rows, precision)
        trust["chosen"] = None if chosen is None else asdict(chosen)
    if curves:
        trust["curves"] = {
            "calibration": [asdict(one) for one in bins],
            "precision_recall": [asdict(one) for one in rows],
            "roc": calibration.roc(*sure),
        }
    return counts | _filtered(chances, truth, threshold) | trust


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


def toy_label(pair: LabelledPair) -> bool | None:
    """Tell by the toy world's sidecar whether a pair's text is true of its picture."""
    truth = pair.meta.get("toy")
    noisy = truth.get("is_noisy") if isinstance(truth, dict) else None
    return not noisy if isinstance(noisy, bool) else None


def _without_label(pair: LabelledPair) -> LabelledPair:
    return replace(pair, reason=pair.reason or NO_LABEL)
