"""The vision tower."""

import torch
from transformers import BlipConfig

from models.vision import VisionTower


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
