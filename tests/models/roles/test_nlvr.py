"""NLVR2: the original's numbers, and results that do not depend on the batch."""

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
from models.roles.nlvr import NlvrModel, nlvr_loss

Original = Callable[[str, Role], nn.Module]
Folders = Callable[[str, Role], Path]
Reference = Callable[[str], tuple[dict[str, Tensor], dict[str, float]]]


@pytest.fixture(scope="module")
def reasoner(original_folder: Folders) -> NlvrModel:
    return NlvrModel.load(original_folder("nlvr", "nlvr"), dtype="fp32")


@pytest.fixture(scope="module")
def facts(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "nlvr.json").read_text())


def test_logits_loss_and_gradients_equal_the_original(
    original: Original, reference: Reference, facts: Any, images: Tensor, normalise: Any
) -> None:
    values, limits = reference("nlvr")
    network = original("nlvr", "nlvr").requires_grad_(True)
    states = network.vision_model(normalise(images))
    ids, mask = values["in.input_ids_enc"], values["in.attention_mask"].bool()
    logits = network(ids, mask, states[:4], states[4:])
    loss = nlvr_loss(logits, values["in.targets"])
    for name, found in (("out.logits", logits), ("out.loss", loss)):
        torch.testing.assert_close(found, values[name], atol=limits[name], rtol=1e-5)
    loss.backward()
    parameters = dict(network.named_parameters())
    for name, norm in facts["grad_norms"].items():
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
    states = network.vision_model(normalise(images))
    ids, mask = values["in.input_ids_enc"], values["in.attention_mask"].bool()
    hidden = network.text_encoder.encode(ids, mask, states[:4], states[4:])[:, 0]
    name = "out.from_pretrain_hidden_first_token"
    torch.testing.assert_close(hidden, values[name], atol=limits[name], rtol=1e-5)


def test_upper_layers_merge_and_lower_ones_average(reasoner: NlvrModel) -> None:
    layers = reasoner.network.text_encoder.encoder.layers()
    merging = [layer.crossattention.output.merge_layer is not None for layer in layers]
    assert merging == [number >= MERGE_FROM for number in range(len(layers))]
    assert any(merging)


def test_probabilities_equal_the_original(
    reasoner: NlvrModel, reference: Reference, facts: Any, images: Tensor
) -> None:
    expected = reference("nlvr")[0]["out.logits"].softmax(-1)[:, 1].tolist()
    found = reasoner.reason(images[:4], images[4:], facts["texts"])
    assert found == pytest.approx(expected, abs=1e-4)


def test_results_do_not_depend_on_the_batch(
    reasoner: NlvrModel, facts: Any, images: Tensor
) -> None:
    texts, left, right = facts["texts"], images[:4], images[4:]
    together = reasoner.reason(left, right, texts)
    backwards = reasoner.reason(left.flip(0), right.flip(0), texts[::-1])[::-1]
    alone = [
        reasoner.reason(left[n : n + 1], right[n : n + 1], texts[n : n + 1])[0] for n in range(4)
    ]
    assert alone == pytest.approx(together, abs=1e-5)
    assert backwards == pytest.approx(together, abs=1e-5)
    assert len({round(value, 5) for value in together}) == 4


def test_both_images_and_their_order_count(reasoner: NlvrModel, images: Tensor) -> None:
    text = ["the left image show a red car"]
    first, second, third = images[:1], images[1:2], images[2:3]
    (one,), (turned,), (other,) = (
        reasoner.reason(left, right, text)
        for left, right in ((first, second), (second, first), (first, third))
    )
    assert abs(one - turned) > 1e-4
    assert abs(one - other) > 1e-4


def test_an_empty_batch_and_a_long_statement(reasoner: NlvrModel, images: Tensor) -> None:
    assert reasoner.reason(images[:0], images[:0], []) == []
    (long,), (cut,) = (
        reasoner.reason(images[:1], images[1:2], ["dog " * words]) for words in (500, 40)
    )
    assert long == pytest.approx(cut, abs=1e-6)


def test_bf16_is_close(
    original_folder: Folders, reasoner: NlvrModel, images: Tensor, facts: Any
) -> None:
    rough = NlvrModel.load(original_folder("nlvr", "nlvr"), dtype="bf16")
    exact, found = (one.reason(images[:4], images[4:], facts["texts"]) for one in (reasoner, rough))
    assert found == pytest.approx(exact, abs=0.03)
