"""Where things stand: exactly one relation holds, within the picture, a gap apart."""

import random

import pytest

from pipeline.toy.layout import INVERSE, RELATIONS, Relation, holds, place_one, place_two


@pytest.mark.parametrize("relation", RELATIONS)
def test_exactly_one_relation_holds_and_its_inverse_the_other_way_round(relation: Relation) -> None:
    rng = random.Random(2)
    for _ in range(200):
        first, second = place_two(relation, rng)
        assert [name for name in RELATIONS if holds(name, first, second)] == [relation]
        assert [name for name in RELATIONS if holds(name, second, first)] == [INVERSE[relation]]


def test_boxes_are_squares_inside_the_picture() -> None:
    rng = random.Random(3)
    boxes = [place_one(rng) for _ in range(200)]
    boxes += [box for relation in RELATIONS for box in place_two(relation, rng)]
    for left, top, right, bottom in boxes:
        assert 0 < left < right < 1
        assert 0 < top < bottom < 1
        assert right - left == pytest.approx(bottom - top, abs=2e-4)  # the edges are rounded
    assert len(set(boxes)) == len(boxes)
