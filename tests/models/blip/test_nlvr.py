"""The network over two images: the original's numbers, from the start that the original takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.config import Role
from models.blip.nlvr import MERGE_FROM, NlvrNetwork, twin
from models.checkpoints.original import read_original
from models.roles.nlvr import nlvr_loss
from tests.support.gradients import check_gradients

Original = Callable[[str, Role], nn.Module]
Reference = Callable[[str], tuple[dict[str, Tensor], dict[str, float]]]


@pytest.fixture(scope="module")
def facts(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "nlvr.json").read_text())


def test_logits_loss_and_gradients_equal_the_original(
    original: Original, reference: Reference, facts: Any, images: Tensor, normalise: Any
) -> None:
    values, limits = reference("nlvr")
    network = original("nlvr", "nlvr").requires_grad_(True)
    assert isinstance(network, NlvrNetwork)
    ids, mask = values["in.input_ids_enc"], values["in.attention_mask"].bool()
    states = network.vision_model(normalise(images[: 2 * len(ids)]))
    logits = network(ids, mask, states[: len(ids)], states[len(ids) :])
    loss = nlvr_loss(logits, values["in.targets"])
    for name, found in (("out.logits", logits), ("out.loss", loss)):
        torch.testing.assert_close(found, values[name], atol=limits[name], rtol=1e-5)
    loss.backward()
    check_gradients(network, facts)


@torch.no_grad()
def test_a_pre_trained_encoder_starts_both_attentions(
    parity: Path,
    original_config: Callable[[str], BlipConfig],
    reference: Reference,
    images: Tensor,
    normalise: Any,
) -> None:
    values, limits = reference("nlvr")
    started = twin(read_original(parity / "pretrain.pth"))
    network = NlvrNetwork(original_config("pretrain"))
    wanted = network.state_dict()
    missing = {name for name in wanted if name not in started}
    assert missing == {f"cls_head.{n}.{part}" for n in (0, 2) for part in ("weight", "bias")}
    network.load_state_dict({name: started[name] for name in wanted if name in started}, False)
    network.eval()
    ids, mask = values["in.input_ids_enc"], values["in.attention_mask"].bool()
    states = network.vision_model(normalise(images[: 2 * len(ids)]))
    hidden = network.text_encoder.encode(ids, mask, states[: len(ids)], states[len(ids) :])[:, 0]
    name = "out.from_pretrain_hidden_first_token"
    torch.testing.assert_close(hidden, values[name], atol=limits[name], rtol=1e-5)


def test_upper_layers_merge_and_lower_ones_average(original: Original) -> None:
    network = original("nlvr", "nlvr")
    assert isinstance(network, NlvrNetwork)
    layers = network.text_encoder.encoder.layers()
    merging = [layer.crossattention.output.merge_layer is not None for layer in layers]
    assert merging == [number >= MERGE_FROM for number in range(len(layers))]
    assert any(merging)
