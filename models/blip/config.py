"""Sizes of the network, the settings that a checkpoint may name, and the precision it runs in.

A network is described by a transformers `BlipConfig`, so that its folder loads elsewhere too. The
defaults of that class are not BLIP's (text heads 8, vision initialisation 1e-10, vision eps 1e-5),
so every value that matters is written out here. What transformers has no word for stands in the
block `capfilt` of config.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from transformers import BlipConfig

from models.blip.tokenizer import WordPiece

Size = Literal["tiny", "base", "large"]
Role = Literal["captioner", "filter", "vqa", "nlvr", "features", "pretrain"]
Dtype = Literal["fp32", "bf16", "fp16", "int8"]
DtypeChoice = Literal["auto", "fp32", "bf16", "fp16", "int8"]
FirstToken = Literal["cls", "enc"]
LengthRule = Literal["generated", "total"]
QuestionMask = Literal["applied", "ignored"]

# transformers has classes for the first three; the other names are this project's own
ARCHITECTURES: dict[Role, str] = {
    "captioner": "BlipForConditionalGeneration",
    "filter": "BlipForImageTextRetrieval",
    "vqa": "BlipForQuestionAnswering",
    "nlvr": "CapfiltBlipForNlvr",
    "features": "CapfiltBlipForFeatures",
    "pretrain": "CapfiltBlipForPretraining",
}
TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,  # of all that is not computed in int8
}
VISION_EPS, TEXT_EPS = 1e-6, 1e-12  # of the original's LayerNorm; transformers takes 1e-5 in vision

# of the vision tower; the text tower of `large` is that of `base` (BLIP §4.1)
_TINY = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2}
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
_VISION: dict[Size, dict[str, int]] = {"tiny": _TINY, "base": _BASE, "large": _LARGE}
_TEXT: dict[Size, dict[str, int]] = {"tiny": _TINY, "base": _BASE, "large": _BASE}

_CHOICES: dict[str, tuple[str, ...]] = {
    "itm_first_token": get_args(FirstToken),
    "length_rule": get_args(LengthRule),
    "question_mask": get_args(QuestionMask),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a checkpoint may choose beyond transformers' own config.

    `itm_first_token`: the first token of a text that is read with an image (a match, a question, a
    statement); BLIP trains with [ENC], transformers feeds [CLS]. `length_rule`: what a beam's sum
    of log-probabilities is divided by, the number of generated tokens with the end token
    (`generated`, transformers), or of all tokens with the prompt and without the end token
    (`total`, the original). `question_mask`: whether a written answer is kept from looking at the
    pads behind its question (`applied`), or looks at them as in the original and transformers
    (`ignored`), and so depends on the longest question of its batch; training and ranking apply
    the mask, as in the original. A question alone has no pads: then the two are equal.
    """

    itm_first_token: FirstToken = "cls"
    length_rule: LengthRule = "generated"
    question_mask: QuestionMask = "applied"

    def first_id(self, tokenizer: WordPiece) -> int:
        """Return the id of the first token of a text that is read with an image."""
        return tokenizer.enc_id if self.itm_first_token == "enc" else tokenizer.cls_id

    def to_dict(self) -> dict[str, str]:
        """Write the block `capfilt` of config.json."""
        return {name: getattr(self, name) for name in _CHOICES}

    @classmethod
    def read(cls, block: dict[str, Any]) -> "Settings":
        """Read the block `capfilt` of config.json; ValueError names what it does not know."""
        for name, value in block.items():
            if name not in _CHOICES:
                raise ValueError(f"capfilt.{name} is unknown; known are {sorted(_CHOICES)}")
            if value not in _CHOICES[name]:
                raise ValueError(f"capfilt.{name} is {value!r}; expected one of {_CHOICES[name]}")
        return cls(**block)


ORIGINAL = Settings(itm_first_token="enc", length_rule="total")  # what the original code does


def blip_config(
    size: Size, *, vocab_size: int, sep_id: int, pad_id: int, image_size: int | None = None
) -> BlipConfig:
    """Describe a network of a preset size; [DEC] and [ENC] are the last two ids of the vocabulary.

    What it takes of a vocabulary are a tokenizer's `config_fields`. `image_size` is in pixels; by
    default 64 for `tiny`, 384 otherwise.
    """
    tiny = size == "tiny"
    vision, text = _VISION[size], _TEXT[size]
    return compose(
        {
            **vision,
            "intermediate_size": 4 * vision["hidden_size"],
            "image_size": image_size or (64 if tiny else 384),
            "patch_size": 8 if tiny else 16,
        },
        {
            **text,
            "intermediate_size": 4 * text["hidden_size"],
            "vocab_size": vocab_size,
            "max_position_embeddings": 64 if tiny else 512,
        },
        sep_id=sep_id,
        pad_id=pad_id,
        shared=64 if tiny else 256,
    )


def compose(
    vision: Mapping[str, Any], text: Mapping[str, Any], *, sep_id: int, pad_id: int, shared: int
) -> BlipConfig:
    """Describe a network of given sizes; what they leave open is as BLIP has it.

    `shared` is the width that image and text are projected to.
    """
    return BlipConfig(
        vision_config={"layer_norm_eps": VISION_EPS, "initializer_range": 0.02, **vision},
        text_config={
            "layer_norm_eps": TEXT_EPS,
            "initializer_range": 0.02,
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": sep_id,
            "sep_token_id": sep_id,
            "pad_token_id": pad_id,
            "is_decoder": True,
            **text,
        },
        image_text_hidden_size=shared,
    )


def resolve_dtype(dtype: DtypeChoice, device: str | torch.device) -> Dtype:
    """Choose bf16 where `auto` finds it in hardware (GPU, AMX or avx512_bf16), fp32 elsewhere."""
    if dtype != "auto":
        return dtype
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    abilities = torch.cpu.get_capabilities()
    return "bf16" if abilities.get("amx_bf16") or abilities.get("avx512_bf16") else "fp32"
