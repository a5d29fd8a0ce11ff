"""The words that sank a match: judged as one by one, with each hidden from all others."""

import itertools
import random

import pytest
import torch

from models.blip.networks import MatchNetwork
from models.blip.tokenizer import normalise
from models.checkpoints import locate
from models.roles.attention_explainer import AttentionExplainer
from models.roles.filter import Filter
from pipeline.explain.word_ablation import (
    SINKING,
    AblatedWord,
    WordAblation,
    ablate_words,
    draw_attention,
)
from pipeline.toy.world import caption, draw, scene

FILTER = locate.SHIPPED["tiny-filter"]


@pytest.fixture(scope="module")
def explainer() -> AttentionExplainer:
    return AttentionExplainer.load(FILTER, dtype="fp32", max_tokens=35)


@pytest.fixture(scope="module")
def scorer() -> Filter:
    return Filter.load(FILTER, dtype="fp32")


@pytest.mark.parametrize(
    "text", ["a red circle", "a redd circleblue stars of", "ring", "a 漢字 ring!", "it's a-b"]
)
def test_effects_are_those_of_single_judgements(
    explainer: AttentionExplainer, scorer: Filter, text: str
) -> None:
    picture = draw(scene(random.Random(1), 2, 4))
    found = ablate_words(explainer, picture, text)
    pixels = explainer.preprocess.resize(picture)
    (whole,) = scorer.score(pixels[None], [[text]])[0]
    assert (found.itm, found.itm_logit) == pytest.approx((whole.itm, whole.itm_logit), abs=1e-4)
    assert [word.text for word in found.words] == explainer.match(pixels, text).words
    network, words = explainer.network, explainer.tokenizer
    assert isinstance(network, MatchNetwork)
    ids = torch.tensor([[explainer.first_id, *words.encode([normalise(text)])[0], words.sep_id]])
    tokens = [words.decode([[n]])[0] for n in ids[0, 1:-1].tolist()]
    starts = [n for n, token in enumerate(tokens) if not token.startswith("##") or n == 0]
    with torch.no_grad():
        states = explainer._states(pixels)
        for word, first, end in zip(found.words, starts, [*starts[1:], len(tokens)], strict=True):
            mask = torch.ones_like(ids, dtype=torch.bool)
            mask[0, 1 + first : 1 + end] = False
            logits = network.match_logits(ids, mask, states, None)[0]
            hidden = (logits[1] - logits[0]).item()
            assert word.effect == pytest.approx(whole.itm_logit - hidden, abs=1e-4)


def test_the_wrong_word_is_found_more_often_than_not(explainer: AttentionExplainer) -> None:
    """One word of a true caption is exchanged: it is among the two that sink the match most."""
    rng, found, count = random.Random(2), 0, 60
    for _ in range(count):
        shown = scene(rng, 2, 4)
        words = caption(shown, rng).split()
        thing = rng.choice(shown.things)
        pairs = list(itertools.pairwise(words))
        place = pairs.index((thing.colour, thing.shape))
        wrong = {"red", "blue", "pink", "yellow"} - {one.colour for one in shown.things}
        words[place] = sorted(wrong)[0]
        judged = ablate_words(explainer, draw(shown), " ".join(words))
        order = sorted(range(len(words)), key=lambda n: judged.words[n].effect)
        found += place in order[:2]
    assert found / count > 0.6  # chance: 2 of 9


def test_nothing_to_doubt_and_too_much(explainer: AttentionExplainer) -> None:
    picture = draw(scene(random.Random(3), 1, 4))
    assert ablate_words(explainer, picture, " !. ").words == []
    assert draw_attention(explainer, picture, "", []) == []
    long = ablate_words(explainer, picture, "red " * 500)
    assert len(long.words) == 33  # what is beyond the token limit was not read, and is not judged


def test_maps_are_drawn_for_the_words_that_are_asked_for(explainer: AttentionExplainer) -> None:
    picture = draw(scene(random.Random(4), 2, 4), 96)
    drawn = draw_attention(explainer, picture, "a red circle", [2, 1])
    assert [one.size for one in drawn] == [(96, 96)] * 2
    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_the_worst_come_first_and_the_harmless_not_at_all() -> None:
    effects = (1.0, -2.0, -0.05, -0.5, 0.0)
    found = WordAblation(
        0.1, -2.0, [AblatedWord(str(n), effect) for n, effect in enumerate(effects)]
    )
    assert found.worst(9) == [1, 3]
    assert found.worst(1) == [1]
    assert found.best(2) == [0, 4]
    assert AblatedWord("x", SINKING).sinks is False
