"""What every scorer keeps, whichever model is behind it."""

import math
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.blip.config import Role
from models.scorers.config import BlipScorerConfig, DualEncoderConfig
from models.scorers.opening import check_scorer, open_scorer
from models.scorers.scorer import Scorer

SHAPES = [(1, 1), (400, 3), (3, 400), (64, 48)]
KINDS = ["blip", "clip", "siglip", "siglip2"]


@pytest.fixture(params=KINDS)
def section(
    request: pytest.FixtureRequest,
    folders: Mapping[Role, Path],
    guest_folder: Callable[[str], Path],
) -> Any:
    if request.param == "blip":
        return BlipScorerConfig(model=str(folders["filter"]))
    model = str(guest_folder(request.param))
    return DualEncoderConfig(kind="dual_encoder", name=request.param, model=model)


def test_any_text_of_any_picture_has_every_score(section: Any) -> None:
    scorer: Scorer = open_scorer(section, dtype="fp32")
    pictures = [Image.new(mode, size) for size in SHAPES for mode in ("RGB", "L", "RGBA", "P")]
    with ThreadPoolExecutor(4) as threads:
        batch = list(threads.map(scorer.prepare, pictures))
    texts = [["", "a dog", "word1 " * 900][: number % 4] for number in range(len(batch))]
    scored = scorer.score(batch, texts)
    assert [len(row) for row in scored] == [len(group) for group in texts]
    for told in (each for row in scored for each in row):
        assert len(told.values) == len(scorer.scores)
        assert all(math.isfinite(value) for value in told.values)


def test_what_is_known_before_the_weights_are_read(section: Any) -> None:
    before = check_scorer(section)
    scorer = open_scorer(section)
    assert (before.digest, before.scores) == (scorer.digest, scorer.scores)
    assert pickle.loads(pickle.dumps((section, before))) == (section, before)
