"""Where a model looks for each word: maps of words, not of their pieces, of any layer."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BlipConfig

from models.blip import attention_maps as attention
from models.blip import framing
from models.blip.config import Role
from models.blip.networks import MatchNetwork
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.locate import CheckpointError
from models.roles.attention_explainer import AttentionExplainer


@pytest.fixture(scope="module")
def matcher(folders: dict[Role, Path]) -> AttentionExplainer:
    return AttentionExplainer.load(folders["filter"], dtype="fp32")


@pytest.fixture(scope="module")
def captioner(folders: dict[Role, Path]) -> AttentionExplainer:
    return AttentionExplainer.load(folders["captioner"], role="captioner", dtype="fp32")


@pytest.fixture
def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_words_follow_their_own_tokens(matcher: AttentionExplainer, picture: Image.Image) -> None:
    """The map of a word in pieces is the mean of its pieces' own."""
    image = matcher.preprocess.resize(picture)
    plain = matcher.match(image, "a red houses", kind="attention")
    pieces = matcher.tokenizer.encode(["a red houses"])[0]
    assert len(pieces) > 3
    framed = framing.tokenize_batch(
        [pieces], matcher.tokenizer, matcher.tokenizer.enc_id, 64, torch.device("cpu")
    )
    assert isinstance(matcher.network, MatchNetwork)
    maps = attention.match_maps(matcher.network, framed.ids, framed.mask, matcher._states(image))
    rows = maps.probabilities[plain.layer][0, :, 1:-1, 1:].mean(0).unflatten(-1, (8, 8))
    torch.testing.assert_close(plain.maps[1], rows[1])
    torch.testing.assert_close(plain.maps[2], rows[2:].mean(0))
    assert plain.score == pytest.approx(maps.scores[0, 1].item())


def test_the_maps_of_a_caption_are_those_of_its_text(
    captioner: AttentionExplainer, picture: Image.Image
) -> None:
    image = captioner.preprocess.resize(picture)
    text = captioner.caption(image, "a red ring", prompt="two small dogs")
    whole = captioner.caption(image, "two small dogs a red ring", prompt="")
    assert whole.words[-3:] == text.words
    torch.testing.assert_close(text.maps, whole.maps[-3:])
    assert (whole.maps[:3] - text.maps).abs().max() > 1e-9


@pytest.mark.parametrize(("layers", "expected"), [(1, 0), (2, 0), (3, 1), (4, 2), (6, 3)])
def test_the_default_layer_has_a_gradient(
    tmp_path: Path,
    config: BlipConfig,
    words: WordPiece,
    picture: Image.Image,
    layers: int,
    expected: int,
) -> None:
    config = deepcopy(config)
    config.text_config.num_hidden_layers = layers
    checkpoint.create(tmp_path / "filter", "filter", config, words, seed=3)
    explainer = AttentionExplainer.load(tmp_path / "filter", dtype="fp32")
    found = explainer.match(explainer.preprocess.resize(picture), "a red ring")
    assert found.layer == expected
    assert (found.maps.max() > 0) == (layers > 1)  # one layer is the last


def test_layers_can_be_chosen(matcher: AttentionExplainer, picture: Image.Image) -> None:
    image = matcher.preprocess.resize(picture)
    assert matcher.match(image, "a dog").layer == 2
    first, last = (matcher.match(image, "a dog", layer=layer).maps for layer in (0, 3))
    assert (first - last).abs().max() > 1e-9
    for layer in (-1, 4):
        with pytest.raises(ValueError, match="0 to 3"):
            matcher.match(image, "a dog", layer=layer)


def test_bf16_is_close(
    folders: dict[Role, Path], matcher: AttentionExplainer, picture: Image.Image
) -> None:
    rough = AttentionExplainer.load(folders["filter"], dtype="bf16")
    image = matcher.preprocess.resize(picture)
    exact, found = (one.match(image, "a red ring", kind="attention") for one in (matcher, rough))
    torch.testing.assert_close(found.maps, exact.maps, atol=1e-3, rtol=0.05)
    assert rough.match(image, "a red ring").maps.max() > 0


def test_an_explanation_of_another_role_is_refused(
    matcher: AttentionExplainer, captioner: AttentionExplainer, picture: Image.Image
) -> None:
    image = matcher.preprocess.resize(picture)
    for explain in (captioner.match, captioner.effects):
        with pytest.raises(CheckpointError, match="which matches nothing; load a filter"):
            explain(image, "a dog")
    with pytest.raises(CheckpointError, match="writes no captions; load a captioner"):
        matcher.caption(image, "a dog")
