"""Shapes and colours: each unlike all others, and as large as geometry says."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from pipeline.toy.shapes import COLOURS, OUTLINES, SHAPES
from pipeline.toy.world import Scene, Thing, draw


def drawn(shape: str, box: tuple[float, float, float, float], px: int) -> Image.Image:
    return draw(Scene((Thing("black", shape, box),), None, (240, 240, 240)), px)


def test_outlines_fill_the_unit_square() -> None:
    for points in OUTLINES.values():
        for axis in zip(*points, strict=True):
            assert (min(axis), max(axis)) == pytest.approx((0, 1), abs=1e-9)


def test_shapes_and_colours_are_far_apart_at_forty_pixels() -> None:
    assert min(len(SHAPES), len(COLOURS)) >= 8
    box = (0.3, 0.3, 0.65, 0.65)  # the size that a thing has beside another
    for one, other in combinations(SHAPES, 2):
        a, b = (np.asarray(drawn(shape, box, 40), int) for shape in (one, other))
        assert (np.abs(a - b).max(axis=-1) > 100).sum() >= 20, (one, other)
    for a_rgb, b_rgb in combinations(COLOURS.values(), 2):
        assert np.linalg.norm(np.subtract(a_rgb, b_rgb)) > 70


@pytest.mark.parametrize(
    ("shape", "filled"),
    [("square", 1), ("circle", 0.785), ("ring", 0.573), ("triangle", 0.5), ("diamond", 0.5)],
)
def test_a_shape_covers_what_geometry_says(shape: str, filled: float) -> None:
    image = np.asarray(drawn(shape, (0.2, 0.2, 0.8, 0.8), 200).convert("L"), dtype=float)
    cover = (240 - image[40:160, 40:160]) / (240 - 25)
    assert cover.mean() == pytest.approx(filled, abs=0.03)
    assert (cover[60, 60] < 0.1) == (shape == "ring")
    assert (cover[60:].sum() > 1.5 * cover[:60].sum()) == (shape == "triangle")
