"""Packed layers say what plain ones say, on all that is worth packing, and only where they can."""

import gc
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.config import Dtype, Role, blip_config
from models.blip.products.packed import LEAST, PackedLinear, can_pack, linear_gelu, pack_linears
from models.blip.products.side_by_side import joined
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.locate import SHIPPED
from models.decoding.config import Decoding
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter

WIDTH = 1024  # wide enough that each product is worth packing


@pytest.fixture(scope="module")
def wide(words: WordPiece) -> BlipConfig:
    config = blip_config("tiny", **words.config_fields)
    for part in (config.vision_config, config.text_config):
        part.hidden_size, part.intermediate_size = WIDTH, 2 * WIDTH
        part.num_attention_heads, part.num_hidden_layers = 16, 2
        part.initializer_range = 0.06  # so that texts and scores differ
    config.text_config.encoder_hidden_size = WIDTH
    return config


def created(folder: Path, role: Role, config: BlipConfig, words: WordPiece) -> Path:
    checkpoint.create(folder, role, config, words, seed=1)
    return folder


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=generator)


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(0,), (1,), (2, 3), (65,), (4, 577)])
def test_a_packed_layer_computes_what_a_plain_one_does(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    plain, states = nn.Linear(256, 384), torch.randn(*shape, 256)
    packed = PackedLinear(plain.weight, plain.bias)
    assert (packed.in_features, packed.out_features) == (256, 384)
    torch.testing.assert_close(packed(states), plain(states), atol=1e-5, rtol=1e-5)
    found = linear_gelu(packed, states)
    torch.testing.assert_close(found, nn.functional.gelu(plain(states)), atol=1e-5, rtol=1e-5)
    assert torch.equal(linear_gelu(plain, states), nn.functional.gelu(plain(states)))


@torch.inference_mode()
def test_in_bf16_a_packed_layer_is_as_exact_as_a_plain_one() -> None:
    torch.manual_seed(0)
    plain, states = nn.Linear(256, 384).bfloat16(), torch.randn(65, 256).bfloat16()
    if not can_pack(plain.weight):
        pytest.skip("this CPU computes no bf16 with oneDNN")
    exact = nn.functional.linear(states.float(), plain.weight.float(), plain.bias.float())
    packed = PackedLinear(plain.weight, plain.bias)(states)
    assert packed.dtype == torch.bfloat16
    assert (packed - exact).abs().max() <= (plain(states) - exact).abs().max() + 1e-4


def test_layers_that_are_worth_it_are_packed_and_no_others() -> None:
    side = int(LEAST**0.5)
    network = nn.Sequential(nn.Linear(side, side), nn.Linear(side, side - 1), nn.LayerNorm(side))
    pack_linears(network)
    assert [type(part) for part in network] == [PackedLinear, nn.Linear, nn.LayerNorm]
    assert not list(network[0].parameters())


def test_layers_without_a_bias_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Linear(512, 512, bias=False))
    pack_linears(network)
    assert type(network[0]) is nn.Linear


def test_what_is_packed_is_neither_trained_nor_saved() -> None:
    network = nn.Sequential(nn.Linear(512, 512).requires_grad_(False))
    pack_linears(network)
    states = torch.zeros(2, 512, requires_grad=True)
    with pytest.raises(RuntimeError, match="no gradient"):
        network(states)
    with torch.no_grad():
        assert network(states).shape == (2, 512)
    with pytest.raises(RuntimeError, match="nothing to save"):
        network.state_dict()


def test_onednn_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.zeros(512, 512)
    assert can_pack(weight)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert not can_pack(weight)


def test_what_onednn_cannot_compute_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.zeros(512, 512)
    assert can_pack(weight)
    assert not can_pack(weight.double())
    assert not can_pack(weight.half())
    assert not can_pack(weight.to("meta"))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not can_pack(weight)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_the_file_of_a_packed_network_is_let_go_of(
    tmp_path: Path, wide: BlipConfig, words: WordPiece, dtype: Dtype
) -> None:
    folder = created(tmp_path, "filter", wide, words)
    maps = Path("/proc/self/maps")
    plain = checkpoint.load(folder, "filter", dtype="fp32")
    assert str(folder) in maps.read_text()
    del plain
    gc.collect()
    packed = Filter.load(folder, dtype=dtype)
    assert str(folder) not in maps.read_text(), packed


def test_what_a_tiny_network_laid_together_stays_so() -> None:
    encoder = Filter.load(SHIPPED["tiny-filter"], dtype="fp32").network.text_encoder
    for layer in encoder.encoder.layers():
        own = layer.attention.self
        assert joined((own.query, own.key, own.value)) is not None


def test_a_packed_captioner_writes_the_same_texts(
    tmp_path: Path, wide: BlipConfig, words: WordPiece, images: Tensor
) -> None:
    folder, decoding = created(tmp_path, "captioner", wide, words), Decoding(max_tokens=9)
    plain = BlipCaptioner(checkpoint.load(folder, "captioner", dtype="fp32"), decoding, 5)
    packed = BlipCaptioner.load(folder, decoding=decoding, seed=5, dtype="fp32")
    assert not plain_products(packed.network)
    assert plain_products(plain.network)
    expected, found = (model.caption(images, list("abc"), 2) for model in (plain, packed))
    assert [[text.text for text in row] for row in found] == [
        [text.text for text in row] for row in expected
    ]
    assert len({text.text for row in found for text in row}) > 1
    for row, other in zip(found, expected, strict=True):
        for text, same in zip(row, other, strict=True):
            assert text.logprob == pytest.approx(same.logprob, abs=1e-4)
    head = packed.network.text_decoder.cls.predictions
    assert head._packed is not None


@pytest.mark.parametrize("texts", [[["a red ring"], ["two dogs"], ["a star"]], [["a"], [], ["b"]]])
def test_a_packed_filter_gives_the_same_scores(
    tmp_path: Path, wide: BlipConfig, words: WordPiece, images: Tensor, texts: list[list[str]]
) -> None:
    folder = created(tmp_path, "filter", wide, words)
    plain = Filter(checkpoint.load(folder, "filter", dtype="fp32"), 35)
    packed = Filter.load(folder, dtype="fp32")
    assert not plain_products(packed.network.text_encoder)
    for row, other in zip(packed.score(images, texts), plain.score(images, texts), strict=True):
        for score, same in zip(row, other, strict=True):
            assert score.values == pytest.approx(same.values, abs=1e-4)


def plain_products(network: nn.Module) -> list[nn.Linear]:
    """List the layers that are worth packing, and are not."""
    layers = [part for part in network.modules() if type(part) is nn.Linear]
    return [layer for layer in layers if layer.weight.numel() >= LEAST]
