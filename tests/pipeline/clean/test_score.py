"""Scores complete the rows of the texts, each beside its own picture."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from models.blip.preprocess import Preprocess
from models.roles.filter import Score
from models.scorers.config import BlipScorerConfig
from pipeline.clean.score import NamedScorer, score
from shards.schema import TextRow


class Guest:
    """A scorer of other make."""

    digest = "d"
    scores: tuple[str, ...] = ("itm", "itm_logit", "itc")
    preprocess = Preprocess(4, 4)

    def count_tokens(self, text: str) -> int:
        return len(text)

    def score(self, images: Any, texts: Any) -> list[list[Score]]:
        return [
            [Score(0.5, int(image.sum()), 0.25, len(text), len(text) > 3) for text in group]
            for image, group in zip(images, texts, strict=True)
        ]


def test_rows_are_completed_and_nothing_is_rewritten() -> None:
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1)
    web: TextRow = {"text_no": 0, "origin": "web", "text": "abcd"}
    cut: TextRow = {"text_no": 1, "origin": "synthetic", "text": "x", "logprob": -1.0}
    cut["truncated"] = True
    whole: TextRow = {"text_no": 1, "origin": "synthetic", "text": "xy", "truncated": False}
    rows = [
        rows for rows, _ in score(NamedScorer("blip", Guest()), images, [[web, cut], [], [whole]])
    ]
    same: TextRow = {"itm": 0.5, "itc": 0.25}
    assert rows == [
        [
            web | same | {"itm_logit": 0, "tokens": 4, "truncated": True},
            cut | same | {"itm_logit": 0, "tokens": 1, "truncated": True},
        ],
        [],
        [whole | same | {"itm_logit": 2, "tokens": 2, "truncated": False}],
    ]
    assert "itm" not in web


def test_the_real_filter_scores_what_it_scores_alone(scorer: Any) -> None:
    side = scorer.preprocess.height
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    texts = [["a cat", "two dogs on a bench"], ["a cat"]]
    rows = [
        rows
        for rows, _ in score(
            NamedScorer("blip", scorer),
            images,
            [[{"text": text} for text in group] for group in texts],
        )
    ]
    for image, group, found in zip(images, texts, rows, strict=True):
        for text, row in zip(group, found, strict=True):
            ((alone,),) = scorer.score(image[None], [[text]])
            assert row["itm"] == pytest.approx(alone.itm, abs=1e-5)
            assert row["itc"] == pytest.approx(alone.itc, abs=1e-5)
    logit, of_other_picture = (rows[n][0]["itm_logit"] for n in (0, 1))
    assert logit != pytest.approx(of_other_picture, abs=1e-3)


@pytest.mark.parametrize("tokens", [2, 513])
def test_limits_on_tokens(tokens: int) -> None:
    with pytest.raises(ValidationError, match="max_tokens"):
        BlipScorerConfig(model="m", max_tokens=tokens)
