"""Evaluation of a filter: what it keeps, and how far its probabilities can be trusted."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoints import checkpoint
from models.roles.filter import Filter
from pipeline.evaluate import LabelledPair, calibration, measure_filter
from pipeline.toy.judges import pair_is_right
from tests.support.small_evaluation import CONFIG, evaluate_filter, pixels_of

TRUST = ("average_precision", "brier", "calibration_error")


def test_a_filter_is_compared_with_the_labels(folders: Path, pairs: list[LabelledPair]) -> None:
    scorer = Filter.load(folders / "filter", dtype="fp32")
    scores = [scorer.score(pixels_of(scorer, p), [p.texts])[0][0].itm for p in pairs]
    good = [not p.meta["toy"]["is_noisy"] for p in pairs]
    threshold = sorted(scores)[8] - 1e-4
    measures = evaluate_filter(
        folders / "filter", pairs, CONFIG, label=pair_is_right, threshold=threshold
    )
    kept = [score >= threshold for score in scores]
    hits = sum(k and g for k, g in zip(kept, good, strict=True))
    right, wrong = ([s for s, g in zip(scores, good, strict=True) if g is w] for w in (True, False))
    wins = sum((a > b) + 0.5 * (a == b) for a in right for b in wrong)
    expected = {
        "images": 23,
        "texts": 23,
        "threshold": threshold,
        "roc_auc": wins / len(right) / len(wrong),
        "precision": hits / sum(kept),
        "recall": hits / sum(good),
        "kept": sum(kept) / 23,
        "noise_ratio": 1 - sum(kept) / 23,
        "noise_before": 1 - sum(good) / 23,
        "noise_after": 1 - hits / sum(kept),
        "score_not_finite": 0,
    }
    assert measures.pop("left_out") == {}
    trust = {name: measures.pop(name) for name in TRUST}
    assert measures == pytest.approx(expected)
    chances, labels = np.array(scores), np.array(good)
    squares = ((chances - labels) ** 2).mean()
    assert trust["brier"] == pytest.approx(squares, abs=1e-6)
    assert trust["average_precision"] == pytest.approx(
        calibration.average_precision(chances, labels), abs=1e-6
    )


def test_a_threshold_is_chosen_for_a_wanted_precision(
    folders: Path, pairs: list[LabelledPair]
) -> None:
    measures = evaluate_filter(
        folders / "filter", pairs, CONFIG, label=pair_is_right, precision=0.7, curves=True
    )
    chosen = measures["chosen"]
    again = evaluate_filter(
        folders / "filter", pairs, CONFIG, label=pair_is_right, threshold=chosen["threshold"]
    )
    assert again["precision"] == pytest.approx(chosen["precision"])
    assert again["precision"] >= 0.7
    assert again["recall"] == pytest.approx(chosen["recall"])
    lower = [
        row for row in measures["curves"]["precision_recall"] if row["recall"] > chosen["recall"]
    ]
    assert all(row["precision"] < 0.7 for row in lower)
    nothing = evaluate_filter(
        folders / "filter", [], CONFIG, label=pair_is_right, precision=0.7, curves=True
    )
    assert nothing["chosen"] is None


def test_scores_that_are_no_numbers_are_counted_and_not_kept(
    folders: Path, pairs: list[LabelledPair]
) -> None:
    loaded = checkpoint.load(folders / "filter", "filter", dtype="fp32", device="cpu")
    with torch.no_grad():
        loaded.network.get_parameter("itm_head.weight").fill_(torch.nan)
    found = measure_filter(Filter(loaded, 35), pairs, label=pair_is_right, threshold=0)
    assert found["score_not_finite"] == found["texts"] == len(pairs)
    assert (found["kept"], found["recall"], found["precision"]) == (0, 0, None)
    assert found["roc_auc"] is None


def test_labels_may_be_given_and_count_for_all_texts_of_a_pair(
    folders: Path, pairs_of_several: list[LabelledPair]
) -> None:
    labels = {pair.key: n % 3 == 0 for n, pair in enumerate(pairs_of_several) if n % 4}
    measures = evaluate_filter(
        folders / "filter",
        pairs_of_several,
        CONFIG,
        threshold=0,
        label=lambda pair: labels.get(pair.key),
    )
    assert measures["left_out"] == {"label_missing": len(pairs_of_several) - len(labels)}
    assert measures["texts"] == 3 * len(labels)
    assert measures["kept"] == measures["recall"] == 1
    assert measures["precision"] == pytest.approx(sum(labels.values()) / len(labels))


def test_nothing_to_evaluate_gives_no_numbers(folders: Path) -> None:
    found = evaluate_filter(folders / "filter", [], CONFIG, label=pair_is_right)
    assert found["roc_auc"] is found["kept"] is found["noise_after"] is None
