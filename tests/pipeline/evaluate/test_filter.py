"""Evaluation of a filter: what it keeps, and how far its probabilities can be trusted."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.blip.config import blip_config
from models.blip.tokenizer import train
from models.checkpoints import checkpoint
from models.roles.filter import Filter
from pipeline.evaluate import (
    EvaluateConfig,
    LabelledPair,
    calibration,
    evaluate_filter,
    measure_filter,
    read_pairs,
)
from pipeline.evaluate.curves import draw
from pipeline.toy.judges import pair_is_right
from pipeline.toy.world import ToyWorldConfig, corpus, write_toy_world

SPREAD = 0.2  # of random weights; at the usual 0.02 all scores are alike
CONFIG = EvaluateConfig(batch_size=4, dtype="fp32")
WORLD = ToyWorldConfig(samples=23, samples_per_shard=9, noise=0.4, image_px=32)
TRUST = ("average_precision", "brier", "calibration_error")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = train(corpus(), 400)
    config = blip_config("tiny", vocab_size=words.size, sep_id=words.sep_id, pad_id=words.pad_id)
    config.vision_config.initializer_range = config.text_config.initializer_range = SPREAD
    folder = tmp_path_factory.mktemp("evaluate")
    checkpoint.create(folder / "filter", "filter", config, words, seed=1)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledPair]:
    folder = tmp_path_factory.mktemp("world")
    write_toy_world(folder, WORLD)
    return list(read_pairs([str(folder)]))


def resized(role: Any, pair: LabelledPair) -> torch.Tensor:
    with Image.open(io.BytesIO(pair.image)) as image:
        return role.preprocess.resize(image.convert("RGB"))[None]


def test_a_filter_is_compared_with_the_labels(folders: Path, pairs: list[LabelledPair]) -> None:
    scorer = Filter.load(folders / "filter", dtype="fp32")
    scores = [scorer.score(resized(scorer, p), [p.texts])[0][0].itm for p in pairs]
    good = [not p.meta["toy"]["is_noisy"] for p in pairs]
    threshold = sorted(scores)[8] - 1e-4
    found = evaluate_filter(
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
    assert found.pop("left_out") == {}
    trust = {name: found.pop(name) for name in TRUST}
    assert found == pytest.approx(expected)
    chances, labels = np.array(scores), np.array(good)
    squares = ((chances - labels) ** 2).mean()
    assert trust["brier"] == pytest.approx(squares, abs=1e-6)
    assert trust["average_precision"] == pytest.approx(
        calibration.average_precision(chances, labels), abs=1e-6
    )


def test_a_threshold_is_chosen_for_a_wanted_precision(
    folders: Path, pairs: list[LabelledPair]
) -> None:
    found = evaluate_filter(
        folders / "filter", pairs, CONFIG, label=pair_is_right, precision=0.7, curves=True
    )
    chosen = found["chosen"]
    again = evaluate_filter(
        folders / "filter", pairs, CONFIG, label=pair_is_right, threshold=chosen["threshold"]
    )
    assert again["precision"] == pytest.approx(chosen["precision"])
    assert again["precision"] >= 0.7
    assert again["recall"] == pytest.approx(chosen["recall"])
    lower = [row for row in found["curves"]["precision_recall"] if row["recall"] > chosen["recall"]]
    assert all(row["precision"] < 0.7 for row in lower)
    with Image.open(io.BytesIO(draw(found))) as drawn:
        assert drawn.size == (1200, 400)
    nothing = evaluate_filter(
        folders / "filter", [], CONFIG, label=pair_is_right, precision=0.7, curves=True
    )
    assert nothing["chosen"] is None
    assert draw(nothing)


def test_scores_that_are_no_numbers_are_counted_and_not_kept(
    folders: Path, pairs: list[LabelledPair]
) -> None:
    loaded = checkpoint.load(folders / "filter", "filter", dtype="fp32", device="cpu")
    with torch.no_grad():
        loaded.network.itm_head.weight.fill_(torch.nan)
    found = measure_filter(Filter(loaded, 35), pairs, label=pair_is_right, threshold=0)
    assert found["score_not_finite"] == found["texts"] == len(pairs)
    assert (found["kept"], found["recall"], found["precision"]) == (0, 0, None)
    assert found["roc_auc"] is None
