"""ITC: a slow obvious loop's loss, the copies and the queue that it leaves, its temperature."""

import math

import pytest
import torch
from torch import Tensor
from transformers import BlipConfig

from models.blip.tokenizer import WordPiece
from models.training.contrast import (
    ContrastiveSettings,
    ContrastNetwork,
    Pairs,
    project_and_normalize,
)
from models.training.momentum import FeatureQueue

PLACES = 10


def fresh(config: BlipConfig) -> tuple[ContrastNetwork, FeatureQueue]:
    """A random network whose copies are unlike their modules, and an empty queue."""
    torch.manual_seed(5)
    network = ContrastNetwork(config)
    for name, parameter in network.named_parameters():
        if name != "temp" and "norm" not in name.lower():
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval(), FeatureQueue(config.image_text_hidden_size, PLACES)


def pairs(words: WordPiece, count: int) -> Pairs:
    """Random images and texts."""
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(5, 60, (count, 8), generator=generator)
    ids[:, 0] = words.cls_id
    pixels = torch.randn(count, 3, 64, 64, generator=generator)
    return Pairs(pixels, ids, torch.ones_like(ids, dtype=torch.bool))


def softmax(values: list[float]) -> list[float]:
    highest = max(values)
    powers = [math.exp(value - highest) for value in values]
    return [power / sum(powers) for power in powers]


def direction(
    features: Tensor, features_m: Tensor, candidates: Tensor, alpha: float, temperature: float
) -> float:
    """One direction of ITC, row by row (ALBEF §3.2, eq. 1 and 2; §3.3, eq. 6)."""
    total = 0.0
    for row, (feature, feature_m) in enumerate(zip(features, features_m, strict=True)):
        found = softmax([float(feature @ other) / temperature for other in candidates])
        soft = softmax([float(feature_m @ other) / temperature for other in candidates])
        for column, (share, target) in enumerate(zip(found, soft, strict=True)):
            wanted = alpha * target + (1 - alpha) * (column == row)
            total -= wanted * math.log(share) / len(features)
    return total


@torch.no_grad()
def test_the_loss_equals_a_slow_loop(config: BlipConfig, words: WordPiece) -> None:
    """The second step, whose candidates are the batch and what the first left in the queue."""
    network, queue = fresh(config)
    settings = ContrastiveSettings(words.enc_id, alpha=0.3, momentum=0.9)
    network.contrast(pairs(words, 4), queue, torch.eye(4, 4 + PLACES), settings)
    waiting = queue.image_queue[:, :4].T.clone(), queue.text_queue[:, :4].T.clone()
    batch = pairs(words, 3)
    found = network.contrast(batch, queue, torch.eye(3, 3 + PLACES), settings)
    # the copies have moved by now, to where the step read them
    images_m = project_and_normalize(network.vision_proj_m, network.vision_model_m(batch.pixels))
    states_m = network.text_encoder_m.encode(batch.ids, batch.mask)
    texts_m = project_and_normalize(network.text_proj_m, states_m)
    options = {"alpha": 0.3, "temperature": network.temp.item()}
    to_text = direction(found.images, images_m, torch.cat([texts_m, waiting[1]]), **options)
    to_image = direction(found.texts, texts_m, torch.cat([images_m, waiting[0]]), **options)
    assert found.loss.item() == pytest.approx((to_text + to_image) / 2, rel=1e-5)
    assert found.image_to_text.shape == found.text_to_image.shape == (3, 3 + PLACES)
    torch.testing.assert_close(queue.image_queue[:, 4:7].T, images_m)
    torch.testing.assert_close(queue.text_queue[:, 4:7].T, texts_m)
    assert queue.valid().sum() == 7


@torch.no_grad()
def test_copies_move_by_a_share_of_the_way(config: BlipConfig, words: WordPiece) -> None:
    network, queue = fresh(config)
    module, copy = network.vision_proj.weight.clone(), network.vision_proj_m.weight.clone()
    settings = ContrastiveSettings(words.enc_id, momentum=0.9)
    network.contrast(pairs(words, 3), queue, torch.eye(3, 3 + PLACES), settings)
    assert torch.equal(network.vision_proj.weight, module)
    torch.testing.assert_close(network.vision_proj_m.weight, 0.9 * copy + 0.1 * module)


def test_a_prompt_stands_between_the_first_token_and_the_text() -> None:
    ids, mask = (
        torch.tensor([[1, 7, 8, 2], [1, 9, 2, 0]]),
        torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    )
    batch = Pairs(torch.zeros(2, 3, 8, 8), ids, mask.bool())
    prompted, shown = batch.with_prompt(50, (5, 6))
    assert prompted.tolist() == [[50, 5, 6, 7, 8, 2], [50, 5, 6, 9, 2, 0]]
    assert shown.int().tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]
    assert batch.with_first_token(60)[:, 0].tolist() == [60, 60]
    assert batch.ids[:, 0].tolist() == [1, 1]


@pytest.mark.parametrize(("before", "after"), [(1e-9, 0.001), (9.0, 0.5), (0.2, 0.2)])
def test_the_temperature_is_held_in_its_range(
    config: BlipConfig, words: WordPiece, before: float, after: float
) -> None:
    network, queue = fresh(config)
    with torch.no_grad():
        network.temp.fill_(before)
    network.contrast(
        pairs(words, 3), queue, torch.eye(3, 3 + PLACES), ContrastiveSettings(words.enc_id)
    )
    assert network.temp.item() == pytest.approx(after)
