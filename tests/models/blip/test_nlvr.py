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
from models.checkpoints.original import read_original, rename
from models.roles.nlvr import nlvr_loss

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
    ids, mask = values["in.input_ids_enc"], values["in.attention_mask"].bool()
    states = network.vision_model(normalise(images[: 2 * len(ids)]))
    logits = network(ids, mask, states[: len(ids)], states[len(ids) :])
    loss = nlvr_loss(logits, values["in.targets"])
    for name, found in (("out.logits", logits), ("out.loss", loss)):
        torch.testing.assert_close(found, values[name], atol=limits[name], rtol=1e-5)
    loss.backward()
    parameters = dict(network.named_parameters())
    for name, norm in facts["grad_norms"].items():
        if not name.endswith("key.bias"):  # the true gradient is 0
            found = parameters[rename(name)].grad.norm().item()
            assert found == pytest.approx(norm["fp32"], rel=1e-3), name
    every = torch.stack([p.grad.norm() for p in parameters.values() if p.grad is not None]).norm()
    assert every.item() == pytest.approx(facts["grad_norm_total"]["fp32"], rel=1e-3)


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
    layers = original("nlvr", "nlvr").text_encoder.encoder.layers()
    merging = [layer.crossattention.output.merge_layer is not None for layer in layers]
    assert merging == [number >= MERGE_FROM for number in range(len(layers))]
    assert any(merging)
