"""Layers that are computed as one keep their names, their numbers and their gradients."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BlipConfig

from models.blip.products.side_by_side import joined, lay_together, project
from models.blip.text import TextTransformer


@pytest.fixture
def linears() -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(16, width) for width in (8, 24, 16)]


def shapes(linears: list[nn.Linear]) -> list[tuple[int, ...]]:
    whole = joined(linears)
    assert whole is not None
    return [tuple(part.shape) for part in whole]


def test_one_product_equals_each(linears: list[nn.Linear]) -> None:
    states = torch.randn(3, 5, 16)
    with torch.no_grad():
        apart = [linear(states) for linear in linears]
        assert joined(linears) is None
        lay_together(linears)
        assert shapes(linears) == [(48, 16), (48,)]
        assert shapes(linears[1:]) == [(40, 16), (40,)]
        for found, expected in zip(project(linears, states), apart, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_what_is_moved_cast_or_replaced_is_no_longer_joined(linears: list[nn.Linear]) -> None:
    lay_together(linears)
    states = torch.randn(2, 16)
    other = copy.deepcopy(linears)
    other[1].weight = nn.Parameter(torch.randn(24, 16))
    assert joined(other) is None
    with torch.no_grad():
        expected = [linear(states) for linear in other]
        assert all(map(torch.equal, project(other, states), expected))
    assert joined([linears[1], linears[0]]) is None
    assert joined([linear.double() for linear in linears]) is None


def test_gradients_reach_each_layer(linears: list[nn.Linear]) -> None:
    lay_together(linears)
    torch.cat(project(linears, torch.randn(2, 16)), dim=-1).square().sum().backward()
    gradients = [linear.weight.grad for linear in linears]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@torch.no_grad()
def test_a_transformer_laid_together_is_saved_and_read_as_before(
    config: BlipConfig, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    network = TextTransformer(config.text_config).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ids, images = torch.randint(5, 40, (4, 6)), torch.randn(2, 5, 128)
    expected = network.encode(ids, torch.ones(4, 6, dtype=torch.bool), images)
    network.lay_together()
    assert joined(network.image_projections()) is not None
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    after = load_file(tmp_path / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    found = network.encode(ids, torch.ones(4, 6, dtype=torch.bool), images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
