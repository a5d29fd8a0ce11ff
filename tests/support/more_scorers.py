"""More tiny folders of other makers' dual encoders: other texts, other towers."""

from pathlib import Path

import torch
import transformers as hf

from tests.support.tiny_guests import Build, draw_weights, words

_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_VISION = {**_TOWER, "image_size": 32, "patch_size": 16}


def align(folder: Path) -> None:
    """A convolutional tower and BERT; a temperature in the place of a scale."""
    tokenizer = words(framed=True)
    images = hf.EfficientNetImageProcessorPil(size={"height": 64, "width": 64})
    hf.AlignProcessor(images, tokenizer).save_pretrained(folder)
    text = {**_TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
    vision = {
        "image_size": 64,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "hidden_dim": 32,
        "kernel_sizes": [3],
        "in_channels": [32],
        "out_channels": [16],
        "strides": [1],
        "num_block_repeats": [1],
        "expand_ratios": [1],
        "depthwise_padding": [],
    }
    config = hf.AlignConfig(text_config=text, vision_config=vision, projection_dim=16)
    _save(hf.AlignModel(config), folder)


def altclip(folder: Path) -> None:
    """Texts of many languages, whose positions begin behind the pad."""
    tokenizer = words(framed=True)
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    hf.AltCLIPProcessor(images, tokenizer).save_pretrained(folder)
    text = {
        **_TOWER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "project_dim": 32,
        "projection_dim": 16,
    }
    config = hf.AltCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=16)
    _save(hf.AltCLIPModel(config), folder)


def chinese_clip(folder: Path) -> None:
    """BERT beside a ViT."""
    tokenizer = words(framed=True)
    images = hf.ChineseCLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    hf.ChineseCLIPProcessor(images, tokenizer).save_pretrained(folder)
    text = {**_TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
    config = hf.ChineseCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=16)
    _save(hf.ChineseCLIPModel(config), folder)


def metaclip_2(folder: Path) -> None:
    """CLIP with words of all languages."""
    tokenizer = words(framed=True)
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    hf.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    text = {
        **_TOWER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 40,
        "eos_token_id": 2,
        "projection_dim": 16,
    }
    vision = {**_VISION, "projection_dim": 16}
    config = hf.MetaClip2Config(text_config=text, vision_config=vision, projection_dim=16)
    _save(hf.MetaClip2Model(config), folder)


def two_towers(folder: Path) -> None:
    """A ViT and a BERT that were put together later."""
    tokenizer = words(framed=True)
    images = hf.ViTImageProcessorPil(size={"height": 32, "width": 32})
    hf.VisionTextDualEncoderProcessor(images, tokenizer).save_pretrained(folder)
    text = hf.BertConfig(**_TOWER, vocab_size=len(tokenizer), max_position_embeddings=40)
    config = hf.VisionTextDualEncoderConfig.from_vision_text_configs(
        hf.ViTConfig(**_VISION), text, projection_dim=16
    )
    _save(hf.VisionTextDualEncoderModel(config), folder)


MORE_SCORERS: dict[str, Build] = {
    "align": align,
    "altclip": altclip,
    "chinese_clip": chinese_clip,
    "metaclip_2": metaclip_2,
    "two_towers": two_towers,
}


def _save(network: hf.PreTrainedModel, folder: Path) -> None:
    draw_weights(network, gain=1.2)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if name in ("logit_scale", "temperature"):
                tensor.fill_(0.5)
    network.save_pretrained(folder)
