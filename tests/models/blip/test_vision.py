"""The vision tower."""

import copy

import pytest
import torch
from torch import Tensor
from transformers import BlipConfig

from models.blip.vision import VisionLayer, VisionTower


def tower_of(config: BlipConfig, **change: float) -> VisionTower:
    torch.manual_seed(0)
    vision = copy.deepcopy(config.vision_config)
    vision.update(change)
    tower = VisionTower(vision)
    for name, parameter in tower.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return tower


def gradients(tower: VisionTower, pixels: Tensor) -> list[Tensor]:
    tower.zero_grad()
    tower(pixels)[:, :, ::7].square().sum().backward()
    found = []
    for parameter in tower.parameters():
        assert parameter.grad is not None
        found.append(parameter.grad.clone())
    return found


def test_a_tower_sees_each_image_alone(config: BlipConfig) -> None:
    torch.manual_seed(0)
    tower = VisionTower(config.vision_config).eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together = tower(pixels)
        alone = torch.cat([tower(pixels[n : n + 1]) for n in range(3)])
        other = tower(pixels.flip(-1))
    assert together.shape == (3, 65, 128)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (together - other).abs().max() > 1e-3


@pytest.mark.parametrize("last", [1, 3, 99])
def test_recomputed_blocks_give_equal_gradients(config: BlipConfig, last: int) -> None:
    tower, pixels = tower_of(config).train(), torch.randn(2, 3, 64, 64)
    tower.encoder.drop_path = 0.5
    torch.manual_seed(1)
    expected = gradients(tower, pixels)
    tower.encoder.recomputed = last
    runs = []
    tower.encoder.layers[3].register_forward_pre_hook(lambda *_: runs.append(3))
    tower.encoder.layers[1].register_forward_pre_hook(lambda *_: runs.append(1))
    torch.manual_seed(1)  # the same branches are dropped, also when they are computed again
    for found, exact in zip(gradients(tower, pixels), expected, strict=True):
        torch.testing.assert_close(found, exact)
    assert runs.count(3) == 2
    assert runs.count(1) == 1 + (last >= 3)


def test_recomputing_is_for_training_only(config: BlipConfig) -> None:
    tower, runs = tower_of(config).eval(), []
    pixels = torch.randn(1, 3, 64, 64)
    plain = tower(pixels)
    tower.encoder.recomputed = 4
    tower.encoder.layers[0].register_forward_pre_hook(lambda *_: runs.append(0))
    with torch.no_grad():
        assert torch.equal(tower(pixels), plain)
    assert len(runs) == 1


def test_drop_path_skips_later_branches_more_often_and_keeps_the_mean(config: BlipConfig) -> None:
    tower = tower_of(config).train()
    tower.encoder.drop_path = 0.6
    hidden, many = torch.randn(1, 2, 128), 4000
    skipped = []
    for number, layer in enumerate(tower.encoder.layers):
        assert isinstance(layer, VisionLayer)
        layer.mlp.fc2.weight.data.zero_()  # leaves the branch of attention alone
        layer.mlp.fc2.bias.data.zero_()
        with torch.no_grad():
            found = layer(hidden.expand(many, -1, -1), 0.6 * number / 3)
            branch = layer.self_attn(layer.layer_norm1(hidden))
        unchanged = (found == hidden).flatten(1).all(1)
        skipped.append(unchanged.float().mean().item())
        torch.testing.assert_close(found.mean(0), (hidden + branch)[0], atol=0.15, rtol=0.1)
    assert skipped == pytest.approx([0, 0.2, 0.4, 0.6], abs=0.03)


def test_the_encoder_hands_rising_rates_to_its_blocks(config: BlipConfig) -> None:
    tower, rates = tower_of(config).train(), []
    tower.encoder.drop_path = 0.3
    for layer in tower.encoder.layers:
        layer.register_forward_pre_hook(lambda _, inputs: rates.append(inputs[1]))
    tower(torch.randn(1, 3, 64, 64))
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


def test_nothing_is_dropped_in_evaluation(config: BlipConfig) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    plain, dropping = tower_of(config).eval(), tower_of(config, attention_dropout=0.5)
    dropping.encoder.drop_path = 0.5
    with torch.no_grad():
        assert torch.equal(dropping.eval()(pixels), plain(pixels))
        dropping.encoder.drop_path = 0
        assert not torch.allclose(dropping.train()(pixels), plain(pixels))  # attention alone
