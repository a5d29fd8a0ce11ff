"""The language loss: the original's and transformers' numbers, and an obvious loop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.config import Role
from models.blip.networks import CaptionNetwork
from models.checkpoints import checkpoint
from models.training.captioning import language_loss
from tests.support.gradients import check_gradients

References = tuple[dict[str, Tensor], dict[str, float]]
PROMPT = 3  # "a picture of"


def test_a_captioners_loss_is_the_originals(
    original: Callable[[str, Role], nn.Module],
    reference: Callable[[str], References],
    images: Tensor,
    normalise: Callable[[Tensor], Tensor],
) -> None:
    network, (values, limits) = original("decoder", "captioner"), reference("decoder")
    assert isinstance(network, CaptionNetwork)
    ids, mask = values["in.input_ids"], values["in.attention_mask"].bool()
    with torch.no_grad():
        states = network.vision_model(normalise(images[: len(ids)]))
        found = language_loss(network.text_decoder, ids, mask, states, prompt=PROMPT)
        limit = limits["out.loss_lm"]
        torch.testing.assert_close(found, values["out.loss_lm"], atol=limit, rtol=1e-5)
        sums = []
        for row in range(len(ids)):
            one = slice(row, row + 1)
            arguments = (network.text_decoder, ids[one], mask[one], states[one])
            places = mask[row].sum() - 1 - PROMPT
            assert places == (values["in.labels_unshifted"][row] >= 0).sum()
            sums.append(language_loss(*arguments, prompt=PROMPT) * places)
    limit = limits["out.loss_per_sequence_sum"]
    expected = values["out.loss_per_sequence_sum"]
    torch.testing.assert_close(torch.stack(sums), expected, atol=limit, rtol=1e-5)


def test_a_captioners_gradients_are_the_originals(
    parity: Path,
    original: Callable[[str, Role], nn.Module],
    reference: Callable[[str], References],
    images: Tensor,
    normalise: Callable[[Tensor], Tensor],
) -> None:
    facts = json.loads((parity / "decoder.json").read_text())
    network, values = original("decoder", "captioner").requires_grad_(True), reference("decoder")[0]
    assert isinstance(network, CaptionNetwork)
    ids, mask = values["in.input_ids"], values["in.attention_mask"].bool()
    states = network.vision_model(normalise(images[: len(ids)]))
    language_loss(network.text_decoder, ids, mask, states, prompt=PROMPT).backward()
    check_gradients(network, facts)


def test_without_smoothing_the_loss_is_transformers(
    caption_checkpoint: checkpoint.Checkpoint,
    hf_values: dict[str, Tensor],
    hf_facts: dict[str, Any],
    images: Tensor,
    normalise: Callable[[Tensor], Tensor],
) -> None:
    network = caption_checkpoint.network
    assert isinstance(network, CaptionNetwork)
    ids = hf_values["in.caption_input_ids_dec"]
    mask = hf_values["in.caption_attention_mask"].bool()
    assert torch.equal(hf_values["in.caption_labels"], ids.masked_fill(~mask, -100))
    with torch.no_grad():
        states = network.vision_model(normalise(images[: len(ids)]))
        found = language_loss(network.text_decoder, ids, mask, states, smoothing=0.0)
    limit = hf_facts["tolerance"]["caption_loss"]["atol"]
    torch.testing.assert_close(found, hf_values["out.caption_loss"], atol=limit, rtol=1e-5)


@pytest.mark.parametrize("prompt", [0, 2])
def test_the_loss_equals_an_obvious_loop(config: BlipConfig, prompt: int) -> None:
    torch.manual_seed(3)
    network = CaptionNetwork(config).eval()
    for name, parameter in network.named_parameters():
        if "norm" not in name.lower():
            nn.init.normal_(parameter, std=0.05)
    decoder, states = network.text_decoder, torch.randn(3, 5, 128)
    ids, lengths = torch.randint(3, 60, (3, 8)), [8, 4, 6]
    mask = torch.arange(8) < torch.tensor(lengths)[:, None]
    total, places = 0.0, 0
    with torch.no_grad():
        found = language_loss(decoder, ids, mask, states, prompt=prompt)
        for row, length in enumerate(lengths):
            cache = decoder.bert.open_cache(states[row : row + 1], 8)
            logits = decoder.extend(ids[row : row + 1, :length], cache)[0].log_softmax(-1)
            for place in range(prompt, length - 1):
                right = logits[place, ids[row, place + 1]]
                total -= (0.9 * right + 0.1 * logits[place].mean()).item()
                places += 1
    assert found.item() == pytest.approx(total / places, rel=1e-5)
