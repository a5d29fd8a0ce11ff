"""The networks against transformers' own classes, and against the original's numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from models.blip.config import Role
from models.blip.networks import CaptionNetwork, MatchNetwork
from models.blip.text_layers import Slots
from models.checkpoints.checkpoint import Checkpoint, load


def pixels(checkpoint: Checkpoint, images: Tensor) -> Tensor:
    return checkpoint.description.preprocess.normalise(images, torch.float32)


def every_pair(network: MatchNetwork, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """ITM logits (B, N, 2) of all images with all texts."""
    many = len(pixels)
    slots = Slots(torch.arange(many * len(ids)), many * len(ids))
    states = network.vision_model(pixels)
    logits = network.match_logits(ids.repeat(many, 1), mask.repeat(many, 1), states, slots)
    return logits.view(many, len(ids), 2)


@torch.no_grad()
def test_image_states_equal_transformers(
    caption_checkpoint: Checkpoint, hf_captioner: BlipForConditionalGeneration, images: Tensor
) -> None:
    network = caption_checkpoint.network_as(CaptionNetwork)
    ours = network.vision_model(pixels(caption_checkpoint, images))
    theirs = hf_captioner.vision_model(pixels(caption_checkpoint, images)).last_hidden_state
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_caption_logits_equal_transformers(
    caption_checkpoint: Checkpoint,
    hf_captioner: BlipForConditionalGeneration,
    hf_values: dict[str, Tensor],
    images: Tensor,
) -> None:
    ids, mask = hf_values["in.caption_input_ids_dec"], hf_values["in.caption_attention_mask"]
    inputs = pixels(caption_checkpoint, images[: len(ids)])
    ours = caption_checkpoint.network(inputs, ids)[mask.bool()]
    theirs = hf_captioner(pixel_values=inputs, input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(ours, theirs[mask.bool()], atol=1e-4, rtol=0)
    stored = hf_values["out.caption_logits"][mask.bool()]
    torch.testing.assert_close(ours, stored, atol=1e-4, rtol=0)


@pytest.mark.parametrize("first", ["cls", "enc"])
@torch.no_grad()
def test_match_logits_equal_transformers(
    match_checkpoint: Checkpoint, hf_values: dict[str, Tensor], images: Tensor, first: str
) -> None:
    ids, mask = hf_values[f"in.itm_input_ids_{first}"], hf_values["in.itm_attention_mask"].bool()
    inputs = pixels(match_checkpoint, images[: len(ids)])
    ours = every_pair(match_checkpoint.network_as(MatchNetwork), inputs, ids, mask)
    expected = hf_values[f"out.itm_logits_{first}"]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.softmax(-1), expected.softmax(-1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_cosines_equal_transformers(
    match_checkpoint: Checkpoint,
    hf_matcher: BlipForImageTextRetrieval,
    hf_values: dict[str, Tensor],
    images: Tensor,
) -> None:
    ids, mask = hf_values["in.itm_input_ids_cls"], hf_values["in.itm_attention_mask"]
    inputs = pixels(match_checkpoint, images[: len(ids)])
    network = match_checkpoint.network_as(MatchNetwork)
    image = network.image_features(network.vision_model(inputs))
    ours = image @ network.text_features(ids, mask.bool()).T
    theirs = hf_matcher(ids, inputs, attention_mask=mask, use_itm_head=False).itm_score
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, hf_values["out.itc_cosine"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_caption_network_equals_the_original(
    parity: Path, images: Tensor, original: Callable[[str, Role], nn.Module], normalise: Any
) -> None:
    values = load_file(parity / "decoder.safetensors")
    atol = json.loads((parity / "decoder.json").read_text())["tolerance"]
    network = original("decoder", "captioner")
    assert isinstance(network, CaptionNetwork)
    ids, mask = values["in.input_ids"], values["in.attention_mask"].bool()
    inputs = normalise(images[: len(ids)])
    torch.testing.assert_close(
        network.vision_model(inputs),
        values["out.image_embeds"],
        atol=atol["image_embeds"]["atol"],
        rtol=1e-5,
    )
    torch.testing.assert_close(
        network(inputs, ids)[mask],
        values["out.logits"][mask],
        atol=atol["logits"]["atol"],
        rtol=1e-5,
    )


@pytest.mark.parametrize("first", ["cls", "enc"])
@torch.no_grad()
def test_match_network_equals_the_original(
    parity: Path,
    images: Tensor,
    original: Callable[[str, Role], nn.Module],
    normalise: Any,
    first: str,
) -> None:
    values = load_file(parity / "itm.safetensors")
    atol = json.loads((parity / "itm.json").read_text())["tolerance"]
    network = original("itm", "filter")
    assert isinstance(network, MatchNetwork)
    ids, mask = values[f"in.input_ids_{first}"], values["in.attention_mask"].bool()
    inputs = normalise(images[: len(ids)])
    name = f"itm_logits_{first}"
    found = every_pair(network, inputs, ids, mask)
    torch.testing.assert_close(found, values[f"out.{name}"], atol=atol[name]["atol"], rtol=1e-5)
    if first == "cls":
        image = network.image_features(network.vision_model(inputs))
        cosine = image @ network.text_features(ids, mask).T
        torch.testing.assert_close(
            cosine, values["out.itc_cosine"], atol=atol["itc_cosine"]["atol"], rtol=1e-5
        )


@torch.no_grad()
def test_image_states_and_larger_images_equal_the_stored_ones(
    parity: Path,
    caption_checkpoint: Checkpoint,
    hf_values: dict[str, Tensor],
    hf_facts: dict[str, Any],
    images: Tensor,
) -> None:
    limits, stored = hf_facts["tolerance"], hf_values["out.caption_image_embeds"]
    network = caption_checkpoint.network_as(CaptionNetwork)
    torch.testing.assert_close(
        network.vision_model(pixels(caption_checkpoint, images[: len(stored)])),
        stored,
        atol=limits["caption_image_embeds"]["atol"],
        rtol=1e-5,
    )
    folder = parity / "hf/captioning"
    big = load_file(parity / "images.safetensors")["images_big_u8"]
    large = load(folder, "captioner", dtype="fp32", device="cpu", image_size=big.shape[-1])
    ids = hf_values["in.caption_input_ids_dec"][: len(big)]
    mask = hf_values["in.caption_attention_mask"][: len(big)].bool()
    torch.testing.assert_close(
        large.network(pixels(large, big), ids)[mask],
        hf_values["out.caption_big_logits"][mask],
        atol=limits["caption_big_logits"]["atol"],
        rtol=1e-5,
    )


@torch.no_grad()
def test_log_probabilities_of_sampled_words_equal_the_original(
    original: Callable[[str, Role], nn.Module],
    reference: Callable[[str], tuple[dict[str, Tensor], dict[str, float]]],
    caption_checkpoint: Checkpoint,
    images: Tensor,
) -> None:
    values, limits = reference("decoder")
    ids = values["in.nucleus_sequences"]
    logits = original("decoder", "captioner")(pixels(caption_checkpoint, images[: len(ids)]), ids)
    found = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    name = "out.nucleus_token_logprobs"
    torch.testing.assert_close(found, values[name], atol=limits[name], rtol=1e-5)
