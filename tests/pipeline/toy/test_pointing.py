"""The shipped filter looks at what a word names, and the test of that can fail."""

import pytest
import torch

from models.checkpoints import locate
from models.roles.attention_explainer import AttentionExplainer, WordMaps
from pipeline.toy.pointing import inside, noun_maps, peak, point
from pipeline.toy.shapes import COLOURS
from pipeline.toy.world import Thing


@pytest.fixture(scope="module")
def attender() -> AttentionExplainer:
    return AttentionExplainer.load(locate.SHIPPED["tiny-filter"], dtype="fp32")


def test_the_peak_of_a_noun_falls_into_its_box(attender: AttentionExplainer) -> None:
    found = point(attender, 200, seed=1)
    assert found.shares["both"] >= 0.8
    assert found.shares["colour"] >= 0.8
    assert found.chance < 0.2


def test_the_words_of_another_thing_do_not_point_at_this_one(
    attender: AttentionExplainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the maps alike for all words, both things would be hit as often."""

    def other(found: WordMaps, thing: Thing) -> dict[str, torch.Tensor]:
        words = [n for n, word in enumerate(found.words) if word in COLOURS]
        wrong = next(n for n in words if found.words[n : n + 2] != [thing.colour, thing.shape])
        return noun_maps(found, Thing(found.words[wrong], found.words[wrong + 1], thing.box))

    monkeypatch.setattr("pipeline.toy.pointing.noun_maps", other)
    assert point(attender, 100, seed=1).shares["both"] < 0.3


def test_peaks_and_boxes() -> None:
    values = torch.zeros(2, 4)
    values[1, 2] = 1
    assert peak(values) == (0.625, 0.75)
    assert inside((0.5, 0.5), (0.4, 0.4, 0.6, 0.6))
    assert not inside((0.5, 0.7), (0.4, 0.4, 0.6, 0.6))
    assert not inside((0.3, 0.5), (0.4, 0.4, 0.6, 0.6))
