"""One layer of the text transformer: attention as a slow obvious loop computes it."""

import pytest
import torch
from torch import Tensor
from transformers import BlipConfig

from models.blip.text_layers import (
    CachedText,
    CrossAttention,
    KeyValue,
    Projections,
    SelfAttention,
    Slots,
)


def slow_mix(layer: Projections, hidden: Tensor, states: Tensor, visible: Tensor) -> Tensor:
    """Attention of one text (T, D) to states (K, source), head by head and place by place."""
    query, key, value = layer.query(hidden), layer.key(states), layer.value(states)
    width = query.shape[-1] // layer.heads
    mixed = torch.zeros_like(query)
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        for place in range(len(query)):
            scores = (key[:, part] @ query[place, part]) / width**0.5
            chances = scores.masked_fill(~visible[place], -torch.inf).softmax(0)
            mixed[place, part] = chances @ value[:, part]
    return mixed


@torch.no_grad()
def test_self_attention_equals_a_slow_loop(config: BlipConfig) -> None:
    torch.manual_seed(0)
    attention, hidden = SelfAttention(config.text_config).eval(), torch.randn(2, 5, 128)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    found = attention(hidden, causal)
    for row, text in enumerate(hidden):
        mixed = slow_mix(attention.self, text, text, causal)
        expected = attention.output(mixed, text)
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_token_after_cached_ones_is_read_as_in_the_whole_text(config: BlipConfig) -> None:
    torch.manual_seed(0)
    attention, hidden = SelfAttention(config.text_config).eval(), torch.randn(2, 5, 128)
    whole = attention(hidden, torch.ones(5, 5, dtype=torch.bool).tril())
    heads = attention.self.heads
    kept = KeyValue(*(torch.full((2, heads, 9, 128 // heads), 7.0) for _ in range(2)))
    seen = torch.arange(9) <= torch.arange(5)[:, None]
    first = attention(hidden[:, :4], seen[:4], CachedText(kept, torch.arange(4)))
    last = attention(hidden[:, 4:], seen[4:], CachedText(kept, torch.tensor([4])))
    torch.testing.assert_close(torch.cat([first, last], 1), whole, atol=1e-5, rtol=1e-5)
    assert (kept.key[:, :, 5:] == 7).all()  # nothing is written behind the text


@pytest.mark.parametrize("uneven", [False, True])
@torch.no_grad()
def test_each_text_attends_to_its_own_image(config: BlipConfig, uneven: bool) -> None:
    torch.manual_seed(0)
    attention = CrossAttention(config.text_config).eval()
    hidden, images = torch.randn(4, 3, 128), torch.randn(2, 6, 128)
    owners = [0, 1, 1, 1] if uneven else [0, 0, 1, 1]
    slots = Slots(torch.tensor([0, 3, 4, 5]), 6) if uneven else None  # three slots an image
    found = attention(hidden, attention.self.key_value(images), slots)
    for row, (text, owner) in enumerate(zip(hidden, owners, strict=True)):
        everything = torch.ones(3, 6, dtype=torch.bool)
        mixed = slow_mix(attention.self, text, images[owner], everything)
        expected = attention.output(mixed, text)
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)
