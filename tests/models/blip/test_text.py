"""The text transformer: pads, cache, slots and sharing."""

import copy

import pytest
import torch
from torch import Tensor
from transformers import BlipConfig

from models.blip.text import TextDecoder, TextTransformer
from models.blip.text_layers import Slots


@pytest.fixture(scope="module")
def decoder(config: BlipConfig) -> TextDecoder:
    torch.manual_seed(1)
    network = TextDecoder(config.text_config).eval()
    for name, parameter in network.named_parameters():
        if "LayerNorm" not in name:
            torch.nn.init.normal_(parameter, std=0.08)
    return network.requires_grad_(False)


def random_ids(*shape: int) -> Tensor:
    return torch.randint(5, 40, shape, generator=torch.Generator().manual_seed(2))


def test_pads_change_nothing(decoder: TextDecoder) -> None:
    ids, images = random_ids(2, 7), torch.randn(2, 5, 128)
    mask = torch.ones(2, 7, dtype=torch.bool)
    exact = decoder.bert.encode(ids, mask, images)
    padded = torch.cat([ids, torch.zeros(2, 4, dtype=torch.long)], dim=1)
    wider = torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], dim=1)
    found = decoder.bert.encode(padded, wider, images)[:, :7]
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)
    unmasked = decoder.bert.encode(padded, torch.ones_like(wider), images)[:, :7]
    assert (unmasked - exact).abs().max() > 1e-3


def test_encoding_looks_both_ways_and_decoding_back_only(decoder: TextDecoder) -> None:
    ids, images = random_ids(1, 6), torch.randn(1, 5, 128)
    changed = ids.clone()
    changed[:, -1] = 41
    mask = torch.ones_like(ids, dtype=torch.bool)
    both = [decoder.bert.encode(row, mask, images)[:, 0] for row in (ids, changed)]
    assert (both[0] - both[1]).abs().max() > 1e-3
    back = [
        decoder.extend(row, decoder.bert.open_cache(images, 6))[:, :-1] for row in (ids, changed)
    ]
    assert torch.equal(back[0], back[1])


def test_pieces_through_a_cache_equal_the_whole(decoder: TextDecoder) -> None:
    ids, images = random_ids(3, 8), torch.randn(3, 5, 128)
    whole = decoder.extend(ids, decoder.bert.open_cache(images, 8))
    cache = decoder.bert.open_cache(images, 8)
    parts = [decoder.extend(piece, cache) for piece in ids.split([3, 1, 2, 1, 1], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-5)


def test_expanded_and_reordered_texts_go_on_from_their_own_past(decoder: TextDecoder) -> None:
    ids, images = random_ids(2, 3), torch.randn(2, 5, 128)
    cache = decoder.bert.open_cache(images, 5)
    decoder.extend(ids, cache)
    cache.expand(2)
    second = torch.tensor([[7], [8], [9], [10]])
    decoder.extend(second, cache)
    order = torch.tensor([1, 1, 3, 2])
    cache.reorder(order)
    third = torch.tensor([[11], [12], [13], [14]])
    found = decoder.extend(third, cache)[:, 0]
    texts = torch.cat([ids.repeat_interleave(2, 0), second], dim=1)[order]
    plain = decoder.bert.open_cache(images.repeat_interleave(2, 0), 5)
    expected = decoder.extend(torch.cat([texts, third], dim=1), plain)[:, -1]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_uneven_texts_meet_their_own_image(decoder: TextDecoder) -> None:
    ids, images = random_ids(4, 6), torch.randn(3, 5, 128)
    mask = torch.ones_like(ids, dtype=torch.bool)
    owners, places = [0, 0, 2, 0], [0, 1, 6, 2]  # three texts, none, one; three places for each
    found = decoder.bert.encode(ids, mask, images, Slots(torch.tensor(places), 9))
    expected = decoder.bert.encode(ids, mask, images[owners])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_keys_of_an_image_are_projected_once_and_not_repeated(decoder: TextDecoder) -> None:
    seen = []
    projection = decoder.get_submodule("bert.encoder.layer.0.crossattention.self.key")
    handle = projection.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    images = torch.randn(2, 5, 128)
    cache = decoder.bert.open_cache(images, 4)
    decoder.extend(random_ids(2, 2), cache)
    cache.expand(3)
    decoder.extend(random_ids(6, 1), cache)
    handle.remove()
    assert seen == [2]


def test_layers_can_share_all_but_self_attention(config: BlipConfig) -> None:
    encoder, decoder = TextTransformer(config.text_config), TextDecoder(config.text_config)
    apart = count(encoder, decoder)
    decoder.bert.embeddings = encoder.embeddings
    for ours, theirs in zip(decoder.bert.encoder.layers(), encoder.encoder.layers(), strict=True):
        ours.crossattention = theirs.crossattention
        ours.intermediate, ours.output = theirs.intermediate, theirs.output
    layers = encoder.encoder.layers()
    own = sum(p.numel() for layer in layers for p in layer.attention.parameters())
    head = sum(p.numel() for p in decoder.cls.parameters())
    everything = sum(p.numel() for p in encoder.parameters())
    assert count(encoder, decoder) == everything + own + head < apart


def test_decoding_whole_texts_equals_decoding_through_a_cache(decoder: TextDecoder) -> None:
    ids, images = random_ids(4, 8), torch.randn(2, 5, 128)  # two texts of each image
    cache = decoder.bert.open_cache(images, 8)
    cache.expand(2)
    expected = decoder.bert.extend(ids, cache)
    torch.testing.assert_close(decoder.bert.decode(ids, images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("last", [1, 2, 99])
def test_recomputed_layers_give_equal_gradients(config: BlipConfig, last: int) -> None:
    network = dropping(config, hidden=0.2, attention=0.2).train()
    expected = gradients(network)
    network.encoder.recomputed = last
    runs: list[int] = []
    layers = network.encoder.layers()
    layers[-1].register_forward_pre_hook(lambda *_: runs.append(len(layers)))
    layers[-2].register_forward_pre_hook(lambda *_: runs.append(len(layers) - 1))
    for found, exact in zip(gradients(network), expected, strict=True):
        torch.testing.assert_close(found, exact)
    assert runs.count(len(layers)) == 2 * 2  # encoded and decoded, each twice
    assert runs.count(len(layers) - 1) == 2 * (1 + (last > 1))


@pytest.mark.parametrize(("hidden", "attention"), [(0.5, 0.0), (0.0, 0.5)])
def test_dropout_is_for_training_only(config: BlipConfig, hidden: float, attention: float) -> None:
    plain = dropping(config, hidden=0.0, attention=0.0).eval()
    network = dropping(config, hidden=hidden, attention=attention).eval()
    ids, images = random_ids(2, 6), torch.randn(2, 5, 128)
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        expected = plain.encode(ids, mask, images)
        assert torch.equal(network.encode(ids, mask, images), expected)
        assert torch.equal(network.decode(ids, images), plain.decode(ids, images))
        network.train()
        assert not torch.allclose(network.encode(ids, mask, images), expected, atol=1e-3)


def dropping(config: BlipConfig, *, hidden: float, attention: float) -> TextTransformer:
    text = copy.deepcopy(config.text_config)
    text.hidden_dropout_prob, text.attention_probs_dropout_prob = hidden, attention
    torch.manual_seed(4)
    network = TextTransformer(text)
    for name, parameter in network.named_parameters():
        if "LayerNorm" not in name:
            torch.nn.init.normal_(parameter, std=0.08)
    return network


def gradients(network: TextTransformer) -> list[Tensor]:
    ids, images = random_ids(2, 6), torch.randn(2, 5, 128, generator=torch.Generator())
    mask = torch.ones_like(ids, dtype=torch.bool)
    network.zero_grad()
    torch.manual_seed(9)  # the same places are dropped
    seen = network.encode(ids, mask, images) + network.decode(ids, images)
    seen[:, :, ::7].square().sum().backward()
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def count(*networks: torch.nn.Module) -> int:
    distinct = {id(p): p.numel() for network in networks for p in network.parameters()}
    return sum(distinct.values())
