"""Features: the original's states and unit vectors, whatever else is in the batch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.blip.config import Role
from models.blip.networks import MatchNetwork
from models.blip.text_layers import Slots
from models.blip.tokenizer import normalise as plain
from models.roles.features import FeatureExtractor, Features

Folders = Callable[[str, Role], Path]
Reference = Callable[[str], tuple[dict[str, Tensor], dict[str, float]]]


@pytest.fixture(scope="module")
def extractor(original_folder: Folders) -> FeatureExtractor:
    return FeatureExtractor.load(original_folder("itm", "filter"), dtype="fp32")


@pytest.fixture(scope="module")
def texts(parity: Path) -> list[str]:
    return json.loads((parity / "itm.json").read_text())["texts"]


def test_features_equal_the_original(
    extractor: FeatureExtractor, reference: Reference, images: Tensor, texts: list[str]
) -> None:
    values, limits = reference("itm")
    image, text = extractor.image(images[: len(texts)]), extractor.text(texts)
    assert image.unit is not None
    assert text.unit is not None
    # the reference read its texts as they were; the signs that we drop would count
    same = [number for number, text in enumerate(texts) if plain(text) == text.lower()]
    assert same
    found = {
        "image_embeds": image.states,
        "image_feat": image.unit,
        "text_hidden_cls": text.states[:, 0],
        "text_feat": text.unit,
        "itc_cosine": image.unit @ text.unit.T,
        "base_text_hidden": extractor.text(texts[:1]).states,
        "base_multimodal_hidden": extractor.multimodal(images[:1], texts[:1]).states,
    }
    for name, tensor in found.items():
        key, expected = f"out.{name}", values[f"out.{name}"]
        if name.startswith("text"):
            tensor, expected = tensor[same], expected[same]
        elif name == "itc_cosine":
            tensor, expected = tensor[:, same], expected[:, same]
        torch.testing.assert_close(tensor, expected, atol=limits[key], rtol=1e-5)


@torch.no_grad()
def test_all_ids_of_the_original_give_its_features(
    original: Callable[[str, Role], nn.Module], reference: Reference, images: Tensor, normalise: Any
) -> None:
    values, limits = reference("itm")
    network = original("itm", "filter")
    assert isinstance(network, MatchNetwork)
    mask = values["in.attention_mask"].bool()
    ids, grounded = values["in.input_ids_cls"], values["in.input_ids_enc"]
    image = network.vision_model(normalise(images[: len(ids)]))
    hidden = network.text_encoder.encode(ids, mask)
    count = len(ids)
    slots = Slots(torch.arange(count * len(image)), count * len(image))
    every = network.match_logits(
        grounded.repeat(len(image), 1), mask.repeat(len(image), 1), image, slots
    ).view(len(image), count, 2)
    found = {
        "text_hidden_cls": hidden[:, 0],
        "text_feat": network.unit_text(hidden),
        "itc_cosine": network.image_features(image) @ network.text_features(ids, mask).T,
        "pair_itm_logits_enc": network.match_logits(grounded, mask, image, None),
        "itm_logits_enc": every,
        "itm_prob_match_enc": every.softmax(-1)[..., 1],
    }
    for name, tensor in found.items():
        key = f"out.{name}"
        torch.testing.assert_close(tensor, values[key], atol=limits[key], rtol=1e-5)


def test_a_network_without_heads_gives_the_same_states(
    original_folder: Folders, extractor: FeatureExtractor, images: Tensor, texts: list[str]
) -> None:
    bare = FeatureExtractor.load(original_folder("itm", "features"), role="features", dtype="fp32")
    pictures = images[: len(texts)]
    for first, second in (
        (bare.image(pictures), extractor.image(pictures)),
        (bare.text(texts), extractor.text(texts)),
        (bare.multimodal(pictures, texts), extractor.multimodal(pictures, texts)),
    ):
        assert torch.equal(first.states, second.states)
        assert first.unit is None


def test_features_do_not_depend_on_the_batch(
    extractor: FeatureExtractor, images: Tensor, texts: list[str]
) -> None:
    def check(together: Features, number: int, alone: Features) -> None:
        length = int(alone.mask.sum())
        assert int(together.mask[number].sum()) == length
        pairs = [(together.states[number, :length], alone.states[0])]
        if alone.unit is not None and together.unit is not None:
            pairs.append((together.unit[number], alone.unit[0]))
        for first, second in pairs:
            torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)

    pictures = images[: len(texts)]
    image, text = extractor.image(pictures), extractor.text(texts)
    both = extractor.multimodal(pictures, texts)
    assert both.unit is None
    for number, one in enumerate(texts):
        picture = pictures[number : number + 1]
        check(image, number, extractor.image(picture))
        check(text, number, extractor.text([one]))
        check(both, number, extractor.multimodal(picture, [one]))


def test_unit_vectors_have_length_one(
    extractor: FeatureExtractor, images: Tensor, texts: list[str]
) -> None:
    for found in (extractor.image(images), extractor.text(texts)):
        assert found.unit is not None
        torch.testing.assert_close(found.unit.norm(dim=-1), torch.ones(len(found.unit)))


def test_the_image_is_in_sight_only_where_it_is_given(
    extractor: FeatureExtractor, images: Tensor, texts: list[str]
) -> None:
    first = extractor.multimodal(images[:1], texts[:1]).states
    second = extractor.multimodal(images[1:2], texts[:1]).states
    assert (first - second).abs().max() > 1e-3
    assert (first - extractor.text(texts[:1]).states).abs().max() > 1e-3
