"""How far scores drift in cheaper arithmetic, and how many verdicts of the filter turn with them.

The shipped filter judges toy pictures, with right and wrong texts: it is sure of most, so the
logits are compared too, and verdicts at several thresholds.
"""

import random

import pytest
import torch

from models.blip.config import DtypeChoice
from models.checkpoints.locate import SHIPPED
from models.decoding.config import Decoding
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter, Score
from pipeline.toy.world import captions, draw, scene

PAIRS = 60
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


@pytest.fixture(scope="module")
def pairs() -> tuple[torch.Tensor, list[list[str]]]:
    rng = random.Random(5)
    scenes = [scene(rng) for _ in range(PAIRS)]
    resize = Filter.load(SHIPPED["tiny-filter"], dtype="fp32").preprocess.resize
    texts = [
        [rng.choice(captions(shown)), rng.choice(captions(other))]
        for shown, other in zip(scenes, [*scenes[1:], scenes[0]], strict=True)
    ]
    return torch.stack([resize(draw(shown)) for shown in scenes]), texts


def scores_in(dtype: DtypeChoice, pairs: tuple[torch.Tensor, list[list[str]]]) -> list[Score]:
    model = Filter.load(SHIPPED["tiny-filter"], dtype=dtype)
    return [score for row in model.score(*pairs) for score in row]


@pytest.mark.parametrize(
    ("dtype", "mean", "flips"), [("fp16", 0.002, 1), ("bf16", 0.01, 6), ("int8", 0.01, 6)]
)
def test_cheaper_arithmetic_drifts_little(
    pairs: tuple[torch.Tensor, list[list[str]]], dtype: DtypeChoice, mean: float, flips: int
) -> None:
    exact, found = scores_in("fp32", pairs), scores_in(dtype, pairs)
    drift = [abs(a.itm - b.itm) for a, b in zip(exact, found, strict=True)]
    turned = sum(
        (a.itm >= at) != (b.itm >= at)
        for at in THRESHOLDS
        for a, b in zip(exact, found, strict=True)
    )
    assert 0 < sum(drift) / len(drift) <= mean
    assert turned <= flips  # of 600
    assert 10 < sum(score.itm >= 0.5 for score in exact) < 110  # both verdicts are among them


def test_in_int8_a_score_does_not_depend_on_the_batch(
    pairs: tuple[torch.Tensor, list[list[str]]],
) -> None:
    images, texts = pairs[0][:24], pairs[1][:24]
    model = Filter.load(SHIPPED["tiny-filter"], dtype="int8")
    alone = [model.score(images[n : n + 1], texts[n : n + 1])[0] for n in range(len(images))]
    for row, other in zip(model.score(images, texts), alone, strict=True):
        for score, same in zip(row, other, strict=True):
            assert score.values == pytest.approx(same.values, abs=1e-4)


def test_a_captioner_writes_in_int8() -> None:
    rng = random.Random(6)
    pictures = [draw(scene(rng)) for _ in range(8)]

    def write(dtype: DtypeChoice) -> list[str]:
        decoding = Decoding(method="greedy")
        model = BlipCaptioner.load(SHIPPED["tiny-captioner"], decoding=decoding, dtype=dtype)
        images = torch.stack([model.preprocess.resize(picture) for picture in pictures])
        return [row[0].text for row in model.caption(images, list("abcdefgh"), 1)]

    exact = write("fp32")
    same = sum(a == b for a, b in zip(write("int8"), exact, strict=True))
    assert same >= 6
