"""BLIP's filter behind the seam says what it says without it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from models.blip.config import Role
from models.checkpoints.locate import CheckpointError
from models.roles.filter import Filter
from models.scorers.blip import BlipScorer, check
from models.scorers.config import BlipScorerConfig
from tests.support.tiny_guests import pictures

TEXTS = [["a red ring", "two dogs"], [], ["a house " * 30], ["a"], ["star"], []]


def test_scores_are_the_roles_own(folders: Mapping[Role, Path]) -> None:
    config = BlipScorerConfig(model=str(folders["filter"]), max_tokens=12)
    scorer = BlipScorer.load(config, dtype="fp32", device="cpu")
    batch = [scorer.prepare(picture) for picture in pictures()]
    own = Filter.load(folders["filter"], max_tokens=12, dtype="fp32", device="cpu")
    images = torch.stack([own.preprocess.resize(picture) for picture in pictures()])
    scored = own.score(images, TEXTS)
    assert scorer.score(batch, TEXTS) == scored == scorer.score(images, TEXTS)
    first = scored[0][0]
    assert dict(zip(scorer.scores, first.values, strict=True)) == {
        name: getattr(first, name) for name in ("itm", "itm_logit", "itc")
    }
    assert scorer.score(batch, TEXTS)[2][0].truncated
    assert scorer.digest == own.digest == check(config).digest
    assert scorer.score([], []) == []


def test_a_captioner_is_no_filter(folders: Mapping[Role, Path]) -> None:
    with pytest.raises(CheckpointError, match="expected a filter"):
        check(BlipScorerConfig(model=str(folders["captioner"])))
    with pytest.raises(ValueError, match="max_tokens"):
        check(BlipScorerConfig(model=str(folders["filter"]), max_tokens=512))
