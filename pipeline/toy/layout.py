"""Where the things of a toy picture stand: boxes that fit a relation, and whether one holds."""

import random
from typing import Literal

Box = tuple[float, float, float, float]
Relation = Literal["above", "below", "left of", "right of"]

INVERSE: dict[Relation, Relation] = {
    "above": "below",
    "below": "above",
    "left of": "right of",
    "right of": "left of",
}
RELATIONS: tuple[Relation, ...] = tuple(INVERSE)

_MARGIN, _GAP = 0.04, 0.04
_SIDE_ALONE, _SIDE_OF_TWO = (0.34, 0.60), (0.32, 0.42)
# Two centres differ by at most twice this across the relation's axis: less than the smallest side,
# so the boxes overlap there, and of the four relations exactly one holds.
_SIDESTEP = 0.1


def place_one(rng: random.Random) -> Box:
    """Draw the box of a thing that stands alone."""
    side = rng.uniform(*_SIDE_ALONE)
    left, top = (rng.uniform(_MARGIN, 1 - _MARGIN - side) for _ in range(2))
    return _box(left, top, side)


def place_two(relation: Relation, rng: random.Random) -> list[Box]:
    """Draw the boxes of the first and the second thing, a gap apart along the relation's axis."""
    sides = [rng.uniform(*_SIDE_OF_TWO) for _ in range(2)]
    room = 1 - 2 * _MARGIN - sum(sides)
    gap = rng.uniform(_GAP, room)
    start = _MARGIN + rng.uniform(0, room - gap)
    middle = rng.uniform(0.36, 0.64)
    leads = relation in ("above", "left of")
    along = [start, start + gap + sides[0]] if leads else [start + gap + sides[1], start]
    across = [middle + rng.uniform(-_SIDESTEP, _SIDESTEP) - side / 2 for side in sides]
    lefts, tops = (across, along) if relation in ("above", "below") else (along, across)
    return [_box(*corner_and_side) for corner_and_side in zip(lefts, tops, sides, strict=True)]


def holds(relation: str, box: Box, other: Box) -> bool:
    """Check that a box lies wholly on that side of the other."""
    edges = {
        "above": (box[3], other[1]),
        "below": (other[3], box[1]),
        "left of": (box[2], other[0]),
        "right of": (other[2], box[0]),
    }
    end, start = edges[relation]
    return end <= start


def _box(left: float, top: float, side: float) -> Box:
    # Rounded, so that the box in the sidecar is exactly the box that was drawn.
    return (round(left, 4), round(top, 4), round(left + side, 4), round(top + side, 4))
