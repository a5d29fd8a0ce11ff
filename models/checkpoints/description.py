"""A folder's settings, read and checked before its weights are.

The digest covers all that changes a model's output (weights, settings, tokenizer, preprocessing)
and nothing else, so copies of a folder are equal.
"""

import copy
import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BlipConfig, BlipTextConfig, BlipVisionConfig, PreTrainedConfig

from models.blip import framing
from models.blip import tokenizer as tokenizers
from models.blip.config import ARCHITECTURES, Role, Settings
from models.blip.preprocess import Preprocess
from models.blip.tokenizer import WordPiece
from models.bounded_file import VOCABULARY_BYTES, fault_of, read_bounded
from models.checkpoints.folder import read_json, read_processor
from models.checkpoints.locate import CheckpointError

_LARGEST_IMAGE = 4096  # pixels; attention among the patches of more would need terabytes
_WIDEST, _MOST_WORDS = 1 << 16, 1 << 20  # BLIP: 1024, and 30,524
# of each number: the range in which we compute with it; what is whole is an int
_EPS = (1e-30, 1.0)
_TOWER: Mapping[str, tuple[float, float]] = {
    "hidden_size": (1, _WIDEST),
    "intermediate_size": (1, 16 * _WIDEST),
    "num_hidden_layers": (1, 256),
    "num_attention_heads": (1, _WIDEST),
}
_VISION_RANGES: Mapping[str, tuple[float, float]] = {
    **_TOWER,
    "image_size": (1, _LARGEST_IMAGE),
    "patch_size": (1, _LARGEST_IMAGE),
    "layer_norm_eps": _EPS,
}
_TEXT_RANGES: Mapping[str, tuple[float, float]] = {
    "vocab_size": (1, _MOST_WORDS),
    "encoder_hidden_size": (1, _WIDEST),
    **_TOWER,
    "max_position_embeddings": (1, _MOST_WORDS),
    "layer_norm_eps": _EPS,
    "bos_token_id": (0, _MOST_WORDS),
    "sep_token_id": (0, _MOST_WORDS),
    "pad_token_id": (0, _MOST_WORDS),
}
_SOURCES: Mapping[Role, str] = {  # where one comes from
    "captioner": "such as tiny-captioner, the hub's Salesforce/blip-image-captioning-base, or what "
    "`capfilt finetune captioner` makes",
    "filter": "such as tiny-filter, the hub's Salesforce/blip-itm-base-coco, or what `capfilt "
    "finetune filter` makes",
    "vqa": "such as the hub's Salesforce/blip-vqa-base, or what `capfilt finetune vqa` makes",
    "nlvr": "as `capfilt finetune nlvr` makes it",
    "features": "as `capfilt checkpoint import` makes it of one of BLIP's features",
    "pretrain": "as `capfilt pretrain` makes it",
}
_DROPOUTS = ("attention_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob")
_FRACTIONS = {"layer_norm_eps", "initializer_range", *_DROPOUTS}


@dataclass(frozen=True, slots=True)
class Description:
    """A folder's settings, read and checked, without its weights."""

    folder: Path
    role: Role
    config: BlipConfig
    settings: Settings
    preprocess: Preprocess
    tokenizer: WordPiece
    sources: Mapping[str, str]

    @property
    def positions(self) -> int:
        """The most tokens that the network reads, special ones included."""
        return int(self.config.text_config.max_position_embeddings)

    def check_max_tokens(self, max_tokens: int) -> None:
        """Raise ValueError if a token limit, special tokens included, does not fit the network."""
        framing.check_max_tokens(max_tokens, self.positions, str(self.folder))


def _named(role: Role) -> str:
    """Write a role as the field does, with its article."""
    names: dict[Role, str] = {
        "vqa": "a VQA model",
        "nlvr": "an NLVR2 model",
        "features": "a checkpoint of features",
        "pretrain": "a pre-training checkpoint",
    }
    return names.get(role, f"a {role}")


def describe(folder: Path, role: Role | None = None) -> Description:
    """Read and check all of a folder but its weights; with `role`, refuse any other role."""
    block = read_json(folder, "config.json")
    held = _role(folder, block)
    if role is not None and held != role:
        raise CheckpointError(
            f"{folder} holds {_named(held)} ({ARCHITECTURES[held]}); expected {_named(role)} "
            f"({ARCHITECTURES[role]}), {_SOURCES[role]}."
        )
    try:
        config = _config(block)
        settings = Settings.read(block.get("capfilt", {}))
        processor, origin = read_processor(folder)
        preprocess = Preprocess.read(processor, config.vision_config.image_size)
        words = tokenizers.load(folder, config.text_config.bos_token_id)
        _check_words(words, config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(fault_of(folder, "cannot be used", error)) from error
    sources = {
        "sizes": "config.json",
        "role": "config.json",
        "image_size": origin,
        "tokenizer": tokenizers.source(folder).name,
    }
    for name in settings.to_dict():
        sources[name] = "config.json" if name in block.get("capfilt", {}) else "default"
    return Description(folder, held, config, settings, preprocess, words, sources)


def resized(described: Description, image_size: int) -> Description:
    """Describe the same model for images of another side in pixels."""
    config, preprocess = refit(described.folder, described.config, described.preprocess, image_size)
    sources = {**described.sources, "image_size": "asked for"}
    return replace(described, config=config, preprocess=preprocess, sources=sources)


def refit(
    where: Path, config: BlipConfig, preprocess: Preprocess, image_size: int
) -> tuple[BlipConfig, Preprocess]:
    """Change the side of the images, in pixels; CheckpointError if patches do not fill it."""
    patch = config.vision_config.patch_size
    if not patch <= image_size <= _LARGEST_IMAGE or image_size % patch:
        raise CheckpointError(
            f"an image size of {image_size} was asked for; {where} takes multiples of its patches "
            f"of {patch} pixels, to {_LARGEST_IMAGE}"
        )
    config = copy.deepcopy(config)
    config.vision_config.image_size = image_size
    return config, replace(preprocess, height=image_size, width=image_size)


def digest(described: Description, tensors: Mapping[str, Tensor]) -> str:
    """Sum up all that changes the model's output: SHA-256 in hex."""
    vision, text = described.config.vision_config, described.config.text_config
    facts: dict[str, Any] = {
        "role": described.role,
        "vision": {key: getattr(vision, key) for key in _VISION_RANGES},
        "text": {key: getattr(text, key) for key in _TEXT_RANGES},
        "itm_first_token": described.settings.itm_first_token,
        "length_rule": described.settings.length_rule,
        "preprocess": described.preprocess.to_dict(),
    }
    if described.role == "vqa":
        facts["question_mask"] = described.settings.question_mask
    total = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    total.update(read_bounded(tokenizers.source(described.folder), VOCABULARY_BYTES))
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _role(folder: Path, block: Mapping[str, Any]) -> Role:
    named = block.get("architectures")
    for role, architecture in ARCHITECTURES.items():
        if isinstance(named, list) and architecture in named:
            return role
    raise CheckpointError(
        f"{folder}/config.json names the architectures {named}; expected one of "
        f"{list(ARCHITECTURES.values())}. Give one of BLIP's checkpoints."
    )


def _config(block: dict[str, Any]) -> BlipConfig:
    try:
        config = BlipConfig.from_dict(_known(block, BlipConfig))
    except Exception as error:  # transformers raises its own classes for a field of a wrong type
        raise ValueError(f"config.json: {' '.join(str(error).split())}") from error
    check_config(config)
    return config


def _known(block: dict[str, Any], kind: type) -> dict[str, Any]:
    """Keep what transformers' class declares of its own: a key of its parents can ask for GBs."""
    known = {key: block[key] for key in vars(kind)["__annotations__"] if key in block}
    for name, part in (("vision_config", BlipVisionConfig), ("text_config", BlipTextConfig)):
        if isinstance(known.get(name), dict):
            known[name] = _known(known[name], part)
    return known


def check_config(config: BlipConfig) -> None:
    """Raise ValueError for what our networks do not compute."""
    vision, text = config.vision_config, config.text_config
    _check_numbers(config, {"image_text_hidden_size": (1, _WIDEST)})
    for part, ranges in ((vision, _VISION_RANGES), (text, _TEXT_RANGES)):
        _check_numbers(part, {**ranges, "initializer_range": (0, 10)})
        _check_numbers(part, {key: (0, 1) for key in _DROPOUTS if hasattr(part, key)})
        if part.hidden_act != "gelu":
            raise ValueError(f"config.json: hidden_act is {part.hidden_act!r}; expected 'gelu'")
        if part.hidden_size % part.num_attention_heads:
            raise ValueError(
                f"config.json: hidden_size {part.hidden_size} is not a multiple of "
                f"num_attention_heads {part.num_attention_heads}"
            )


def _check_numbers(part: PreTrainedConfig, ranges: Mapping[str, tuple[float, float]]) -> None:
    for key, (least, most) in ranges.items():
        value = getattr(part, key)
        kind = int | float if key in _FRACTIONS else int
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            raise ValueError(
                f"config.json: {key} is {reprlib.repr(value)}; expected a "
                f"{'number' if key in _FRACTIONS else 'whole number'} from {least:,} to {most:,}"
            )


def _check_words(words: WordPiece, config: BlipConfig) -> None:
    if words.size > config.text_config.vocab_size:
        raise ValueError(
            f"the tokenizer has {words.size} ids with [DEC] and [ENC], "
            f"config.json's vocab_size is {config.text_config.vocab_size}"
        )
    if words.highest_id >= config.text_config.vocab_size:
        raise ValueError(
            f"the tokenizer's highest id is {words.highest_id}, "
            f"config.json's vocab_size is {config.text_config.vocab_size}"
        )
    for name, found in (("sep_token_id", words.sep_id), ("pad_token_id", words.pad_id)):
        expected = getattr(config.text_config, name)
        if found != expected:
            raise ValueError(f"{name} is {expected} in config.json, {found} in the tokenizer")
