"""Tiny folders of other makers' dual encoders: their own classes and processors, random weights."""

from pathlib import Path

import torch
import transformers as hf

from tests.support.tiny_guests import END, Build, draw_weights, words

_WIDTH = 16  # of the common space
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def clip(folder: Path) -> None:
    """No bias; the text is its end token's state."""
    tokenizer = words(framed=True)
    tokenizer.model_max_length = 12
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    hf.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    config = hf.CLIPConfig(
        text_config={
            **_TOWER,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 12,
            "eos_token_id": tokenizer.convert_tokens_to_ids(END),
            "projection_dim": _WIDTH,
        },
        vision_config={**_TOWER, "image_size": 32, "patch_size": 16, "projection_dim": _WIDTH},
        projection_dim=_WIDTH,
    )
    _save(hf.CLIPModel(config), folder)


def siglip(folder: Path) -> None:
    """A bias; texts are padded in full."""
    tokenizer = _siglip_words()
    images = hf.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    hf.SiglipProcessor(images, tokenizer).save_pretrained(folder)
    config = hf.SiglipConfig(
        text_config={**_TOWER, "vocab_size": len(tokenizer), "projection_size": 32},
        vision_config={**_TOWER, "image_size": 32, "patch_size": 16},
    )
    _save(hf.SiglipModel(config), folder)


def siglip2(folder: Path) -> None:
    """Pictures in their own shape, as so many patches."""
    tokenizer = _siglip_words()
    images = hf.Siglip2ImageProcessorPil(patch_size=16, max_num_patches=256)
    hf.Siglip2Processor(images, tokenizer).save_pretrained(folder)
    config = hf.Siglip2Config(
        text_config={**_TOWER, "vocab_size": len(tokenizer), "projection_size": 32},
        vision_config={**_TOWER, "num_patches": 256, "patch_size": 16},
    )
    _save(hf.Siglip2Model(config), folder)


SCORERS: dict[str, Build] = {"clip": clip, "siglip": siglip, "siglip2": siglip2}


def _siglip_words() -> hf.PreTrainedTokenizerFast:
    tokenizer = words()
    tokenizer.model_max_length = 64
    tokenizer.model_input_names = ["input_ids"]  # as released ones have it
    return tokenizer


def _save(network: hf.PreTrainedModel, folder: Path) -> None:
    draw_weights(network, 1.2)
    with torch.no_grad():  # both begin at 0, where every probability is 1/2
        network.logit_scale.fill_(1.5)
        if hasattr(network, "logit_bias"):
            network.logit_bias.fill_(-0.7)
    network.save_pretrained(folder)
