"""A filter's curves are drawn, with something to draw and with nothing."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.evaluate import LabelledPair
from pipeline.evaluate.curves import draw
from pipeline.toy.judges import pair_is_right
from tests.support.small_evaluation import CONFIG, evaluate_filter


def drawn(measures: Any) -> np.ndarray:
    with Image.open(io.BytesIO(draw(measures))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_curves_differ_from_those_of_nothing(folders: Path, pairs: list[LabelledPair]) -> None:
    none: list[LabelledPair] = []
    measures, nothing = (
        evaluate_filter(
            folders / "filter", chosen, CONFIG, label=pair_is_right, precision=0.7, curves=True
        )
        for chosen in (pairs, none)
    )
    page, empty = drawn(measures), drawn(nothing)
    assert page.shape == empty.shape == (400, 1200, 3)
    for panel in range(3):
        here = slice(400 * panel, 400 * (panel + 1))
        blue, blank = (_inked(image[:, here]) for image in (page, empty))
        assert blue > blank + 20, panel


def _inked(image: np.ndarray) -> int:
    """Count the pixels of the colour that data are drawn in."""
    return int((abs(image - (0x1F, 0x4E, 0x79)).sum(-1) < 30).sum())
