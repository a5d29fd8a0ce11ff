"""Layers that are computed as one keep their names, their numbers and their gradients."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BlipConfig

from models.blip.side_by_side import joined, lay_together, project
from models.blip.text import TextTransformer


@pytest.fixture
def linears() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(nn.Linear(16, width) for width in (8, 24, 16))


def test_one_product_equals_each(linears: nn.ModuleList) -> None:
    states = torch.randn(3, 5, 16)
    with torch.no_grad():
        apart = [linear(states) for linear in linears]
        assert joined(linears) is None
        lay_together(linears)
        weight, bias = joined(linears)
        assert (weight.shape, bias.shape) == ((48, 16), (48,))
        assert joined(linears[1:])[0].shape == (40, 16)
        for found, expected in zip(project(linears, states), apart, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_what_is_moved_cast_or_replaced_is_no_longer_joined(linears: nn.ModuleList) -> None:
    lay_together(linears)
    states = torch.randn(2, 16)
    other = copy.deepcopy(linears)
    other[1].weight = nn.Parameter(torch.randn(24, 16))
    assert joined(other) is None
    with torch.no_grad():
        expected = [linear(states) for linear in other]
        assert all(map(torch.equal, project(other, states), expected))
    assert joined(linears.double()) is None
    assert joined([linears[1], linears[0]]) is None


def test_gradients_reach_each_layer(linears: nn.ModuleList) -> None:
    lay_together(linears)
    sum(part.square().sum() for part in project(linears, torch.randn(2, 16))).backward()
    assert all(linear.weight.grad.abs().sum() > 0 for linear in linears)


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
