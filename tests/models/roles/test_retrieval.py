"""Retrieval: the original's scores, and what they depend on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.blip.config import Role
from models.blip.framing import TokenBatch
from models.roles.filter import Filter
from models.roles.retrieval import UNRANKED, EncodedTexts, RankedCandidates, RankRule, Retriever

References = tuple[dict[str, Tensor], dict[str, float]]


@pytest.fixture(scope="module")
def retriever(original_folder: Callable[[str, Role], Path]) -> Retriever:
    return Retriever.load(original_folder("retrieval", "filter"), dtype="fp32")


@pytest.fixture(scope="module")
def filter_(original_folder: Callable[[str, Role], Path]) -> Filter:
    return Filter.load(original_folder("retrieval", "filter"), dtype="fp32")


def rank(
    retriever: Retriever, images: Tensor, texts: list[str], k: int, **rule: Any
) -> RankedCandidates:
    return retriever.rank(retriever.encode_images(images), retriever.encode_texts(texts), k, **rule)


def test_scores_of_both_directions_are_the_originals(
    retriever: Retriever, images: Tensor, reference: Callable[[str], References]
) -> None:
    values, limits = reference("retrieval")
    # the reference's texts were not normalised: take their ids
    framed = TokenBatch(values["in.input_ids_cls"], values["in.attention_mask"].bool())
    with torch.inference_mode():
        texts = EncodedTexts(framed, retriever.network.text_features(framed.ids, framed.mask))
    found = retriever.rank(retriever.encode_images(images[: len(values["in.idx"])]), texts, 3)
    for name, scores in (("i2t", found.to_text), ("t2i", found.to_image)):
        expected = values[f"out.eval_score_{name}"]
        limit = limits[f"out.eval_score_{name}"]
        torch.testing.assert_close(scores, expected, atol=limit, rtol=1e-5)
        assert ((scores != UNRANKED).sum(1) == 3).all()
    assert torch.equal(framed.ids, values["in.input_ids_cls"])  # the search changes no input


def test_each_image_is_told_when_it_is_ranked(retriever: Retriever, images: Tensor) -> None:
    heard: list[tuple[int, int]] = []
    rank(retriever, images[:3], ["a dog"], 1, ranked=lambda *told: heard.append(told))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_each_rule_scores_what_its_name_says(
    retriever: Retriever, filter_: Filter, images: Tensor, hf_facts: dict[str, Any]
) -> None:
    texts = hf_facts["texts"]
    rules: tuple[RankRule, ...] = ("logit+cosine", "logit", "probability")
    both, logit, probability = (
        rank(retriever, images, texts, 99, rule=rule).to_text for rule in rules
    )
    judged = filter_.score(images, [texts] * len(images))
    expected = torch.tensor([[score.itm for score in row] for row in judged])
    torch.testing.assert_close(probability, expected, atol=1e-5, rtol=1e-5)
    cosines = torch.tensor([[score.itc for score in row] for row in judged])
    torch.testing.assert_close(both - logit, cosines, atol=1e-5, rtol=1e-5)


def test_a_search_among_nothing_finds_nothing(retriever: Retriever, images: Tensor) -> None:
    found = rank(retriever, images[:2], [], 3)
    assert found.to_text.shape == (2, 0)
    assert found.to_image.shape == (0, 2)
    found = rank(retriever, images[:2], ["a dog", "a cat"], 0)
    assert (found.to_text == UNRANKED).all()


WORDS = ["a", "red", "dog", "birds", "over", "sea", "zebra", "pizza", "umbrella", "rain", "3"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), max_size=4)


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(TEXTS, min_size=1, max_size=5), order=st.permutations(range(8)))
def test_scores_of_an_images_texts_do_not_depend_on_the_batch(
    filter_: Filter, images: Tensor, groups: list[list[str]], order: list[int]
) -> None:
    chosen = images[order[: len(groups)]]
    together = filter_.score(chosen, groups)
    for image, texts, scores in zip(chosen, groups, together, strict=True):
        for found, alone in zip(scores, filter_.score(image[None], [texts])[0], strict=True):
            check(found.itm, alone.itm)
            check(found.itm_logit, alone.itm_logit)
            check(found.itc, alone.itc)
        for text, found in zip(texts, scores, strict=True):
            single = filter_.score(image[None], [[text]])[0][0]
            check(found.itm, single.itm)
            check(found.itc, single.itc)


def check(found: float, expected: float) -> None:
    assert found == pytest.approx(expected, abs=1e-5, rel=1e-5)
