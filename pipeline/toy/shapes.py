"""What the toy world is made of: colours, and the outlines of shapes."""

import math

Rgb = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, Rgb] = {
    "red": (215, 25, 35),
    "orange": (245, 130, 20),
    "yellow": (240, 205, 0),
    "green": (20, 145, 60),
    "blue": (30, 80, 220),
    "purple": (125, 40, 165),
    "pink": (255, 125, 190),
    "black": (25, 25, 25),
}


def _star() -> list[Point]:
    """Five points, the first one upright, with notches between them."""
    polar = [((0.5, 0.21)[k % 2], math.pi * (k / 5 - 0.5)) for k in range(10)]
    return _fill_square([(r * math.cos(turn), r * math.sin(turn)) for r, turn in polar])


def _heart() -> list[Point]:
    """The classic parametric heart, upright."""
    turns = [2 * math.pi * k / 48 for k in range(48)]
    wave = [(1, 13), (2, -5), (3, -2), (4, -1)]
    return _fill_square(
        [(16 * math.sin(t) ** 3, -sum(a * math.cos(n * t) for n, a in wave)) for t in turns]
    )


def _fill_square(points: list[Point]) -> list[Point]:
    """Stretch an outline to the edges of the unit square, so that a box is tight for any shape."""
    (x0, x1), (y0, y1) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    return [((x - x0) / (x1 - x0), (y - y0) / (y1 - y0)) for x, y in points]


OUTLINES: dict[str, list[Point]] = {
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "triangle": [(0.5, 0), (1, 1), (0, 1)],
    "diamond": [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)],
    "cross": [
        *[(0.33, 0), (0.67, 0), (0.67, 0.33), (1, 0.33), (1, 0.67), (0.67, 0.67)],
        *[(0.67, 1), (0.33, 1), (0.33, 0.67), (0, 0.67), (0, 0.33), (0.33, 0.33)],
    ],
    "star": _star(),
    "heart": _heart(),
}
SHAPES: tuple[str, ...] = ("circle", "ring", *OUTLINES)
