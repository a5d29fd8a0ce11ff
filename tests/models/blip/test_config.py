"""Presets, settings and precision."""

import pytest
import torch

from models.blip.config import Settings, Size, blip_config, resolve_dtype
from models.blip.text import TextTransformer
from models.blip.vision import VisionTower
from models.checkpoints.role_networks import build


@pytest.mark.parametrize("size", ["tiny", "base", "large"])
def test_presets_mend_the_defaults_of_transformers(size: Size) -> None:
    config = blip_config(size, vocab_size=30524, sep_id=102, pad_id=0)
    vision, text = config.vision_config, config.text_config
    assert vision.initializer_range == 0.02
    assert vision.layer_norm_eps == 1e-6
    assert text.layer_norm_eps == 1e-12
    assert vision.hidden_size == 64 * vision.num_attention_heads
    assert text.hidden_size == 64 * text.num_attention_heads
    assert text.encoder_hidden_size == vision.hidden_size
    assert (text.bos_token_id, text.sep_token_id, text.pad_token_id) == (30522, 102, 0)


def test_base_has_the_parameters_of_the_paper() -> None:
    """223.7 M for the captioner: ViT-B/16 at 224, BERT-base with cross-attention, word head."""
    config = blip_config("base", vocab_size=30524, sep_id=102, pad_id=0, image_size=224)
    with torch.device("meta"):
        network = build("captioner", config)
        vision, text = VisionTower(config.vision_config), TextTransformer(config.text_config)
    total = sum(tensor.numel() for tensor in network.parameters())
    head = total - sum(p.numel() for part in (vision, text) for p in part.parameters())
    assert total / 1e6 == pytest.approx(223.7, abs=0.1)
    assert head == 768 * 768 + 768 + 2 * 768 + 30524


def test_settings_are_read_and_unknown_ones_named() -> None:
    assert Settings.read({}) == Settings("cls", "generated")
    assert Settings.read({"itm_first_token": "enc"}) == Settings("enc", "generated")
    chosen = Settings("enc", "total", "ignored")
    assert Settings.read(chosen.to_dict()) == chosen
    with pytest.raises(ValueError, match=r"capfilt\.first_token is unknown"):
        Settings.read({"first_token": "enc"})
    with pytest.raises(ValueError, match=r"capfilt\.length_rule is 'sum'"):
        Settings.read({"length_rule": "sum"})


def test_dtype_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_dtype("bf16", "cpu") == "bf16"
    assert resolve_dtype("fp32", "cuda") == "fp32"
    for ability in ("amx_bf16", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=ability: {name: True})
        assert resolve_dtype("auto", "cpu") == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert resolve_dtype("auto", "cpu") == "fp32"
