"""A folder's settings, read and checked before its weights are.

The digest covers all that changes a model's output (weights, settings, tokenizer, preprocessing)
and nothing else, so copies of a folder are equal.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BlipConfig

from models.blip import framing
from models.blip import tokenizer as tokenizers
from models.blip.config import ARCHITECTURES, Role, Settings
from models.blip.preprocess import Preprocess
from models.blip.tokenizer import WordPiece
from models.checkpoints.folder import read_json, read_processor
from models.checkpoints.weights import CheckpointError

_VISION_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "layer_norm_eps",
)
_TEXT_KEYS = (
    "vocab_size",
    "hidden_size",
    "encoder_hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "layer_norm_eps",
    "bos_token_id",
    "sep_token_id",
    "pad_token_id",
)
_MOST_LAYERS = 256  # a config that asks for millions would keep the loader busy for ever
_LARGEST_IMAGE = 4096  # pixels; attention among the patches of more would need terabytes


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


def describe(folder: Path, role: Role | None = None) -> Description:
    """Read and check all of a folder but its weights; with `role`, refuse any other role."""
    block = read_json(folder, "config.json")
    held = _role(folder, block)
    if role is not None and held != role:
        raise CheckpointError(
            f"{folder} holds a {held} ({ARCHITECTURES[held]}); expected a {role} "
            f"({ARCHITECTURES[role]}). Give a checkpoint of that kind."
        )
    try:
        config = _config(block)
        settings = Settings.read(block.get("capfilt", {}))
        processor, origin = read_processor(folder)
        preprocess = Preprocess.read(processor, config.vision_config.image_size)
        words = tokenizers.load(folder, config.text_config.bos_token_id)
        _check_words(words, config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder} cannot be used: {error}") from error
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
        "vision": {key: getattr(vision, key) for key in _VISION_KEYS},
        "text": {key: getattr(text, key) for key in _TEXT_KEYS},
        "itm_first_token": described.settings.itm_first_token,
        "length_rule": described.settings.length_rule,
        "preprocess": described.preprocess.to_dict(),
    }
    if described.role == "vqa":
        facts["question_mask"] = described.settings.question_mask
    total = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    total.update(tokenizers.source(described.folder).read_bytes())
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
        config = BlipConfig.from_dict(dict(block))
    except Exception as error:  # transformers raises its own classes for a field of a wrong type
        raise ValueError(f"config.json: {error}") from error
    check_config(config)
    return config


def check_config(config: BlipConfig) -> None:
    """Raise ValueError for what our networks do not compute."""
    for part, keys in ((config.vision_config, _VISION_KEYS), (config.text_config, _TEXT_KEYS)):
        for key in keys:
            value = getattr(part, key)
            kind = int | float if key == "layer_norm_eps" else int
            if not isinstance(value, kind) or value < (0 if key.endswith("id") else 1e-30):
                raise ValueError(f"config.json: {key} is {value!r}; expected a positive number")
        if part.hidden_act != "gelu":
            raise ValueError(f"config.json: hidden_act is {part.hidden_act!r}; expected 'gelu'")
        if part.num_hidden_layers > _MOST_LAYERS:
            raise ValueError(f"config.json: num_hidden_layers is {part.num_hidden_layers}")
        if part.hidden_size % part.num_attention_heads:
            raise ValueError(
                f"config.json: hidden_size {part.hidden_size} is not a multiple of "
                f"num_attention_heads {part.num_attention_heads}"
            )


def _check_words(words: WordPiece, config: BlipConfig) -> None:
    if words.size > config.text_config.vocab_size:
        raise ValueError(
            f"the tokenizer has {words.size} ids with [DEC] and [ENC], "
            f"config.json's vocab_size is {config.text_config.vocab_size}"
        )
    for name, found in (("sep_token_id", words.sep_id), ("pad_token_id", words.pad_id)):
        expected = getattr(config.text_config, name)
        if found != expected:
            raise ValueError(f"{name} is {expected} in config.json, {found} in the tokenizer")
