"""Checkpoints: plain Hugging Face BLIP folders, read without running anything that they contain.

Weights come from safetensors, or from a pickle restricted to tensors. What a folder lacks, adds or
misshapes is one CheckpointError. The digest covers all that changes a model's output (weights,
settings, tokenizer, preprocessing) and nothing else, so copies of a folder are equal.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BlipConfig

from models import tokenizer as tokenizers
from models.blip import CaptionNetwork, build
from models.config import ARCHITECTURES, TORCH_DTYPES, Dtype, Role, Settings
from models.preprocess import Preprocess
from models.tokenizer import WordPiece
from models.weights import CheckpointError, arrange, read_tensors

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


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a checkpoint is, and where each of its settings was found."""

    role: Role
    digest: str
    parameters: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    vocab_size: int
    itm_first_token: str
    length_rule: str
    sources: Mapping[str, str]


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


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model in memory: settings, digest and network, in evaluation mode."""

    description: Description
    digest: str
    network: nn.Module


def describe(folder: Path, role: Role | None = None) -> Description:
    """Read and check all of a folder but its weights; with `role`, refuse any other role."""
    block = _read_json(folder, "config.json")
    found = _role(folder, block)
    if role is not None and found != role:
        raise CheckpointError(
            f"{folder} holds a {found} ({ARCHITECTURES[found]}); expected a {role} "
            f"({ARCHITECTURES[role]}). Give a checkpoint of that kind."
        )
    try:
        config = _config(block)
        settings = Settings.read(block.get("capfilt", {}))
        processor, origin = _processor(folder)
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
    for name in ("itm_first_token", "length_rule"):
        sources[name] = "config.json" if name in block.get("capfilt", {}) else "default"
    return Description(folder, found, config, settings, preprocess, words, sources)


def info(folder: Path) -> CheckpointInfo:
    """Say what a checkpoint is, having read all of it and checked every tensor."""
    described = describe(folder)
    tensors = _tensors(described)
    vision, text = described.config.vision_config, described.config.text_config
    return CheckpointInfo(
        role=described.role,
        digest=_digest(described, tensors),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors.values()),
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        vision_width=vision.hidden_size,
        vision_layers=vision.num_hidden_layers,
        vision_heads=vision.num_attention_heads,
        text_width=text.hidden_size,
        text_layers=text.num_hidden_layers,
        text_heads=text.num_attention_heads,
        vocab_size=text.vocab_size,
        itm_first_token=described.settings.itm_first_token,
        length_rule=described.settings.length_rule,
        sources=described.sources,
    )


def load(folder: Path, role: Role, *, dtype: Dtype, device: str | torch.device) -> Checkpoint:
    """Load the model of a folder; CheckpointError says what is wrong with it."""
    described = describe(folder, role)
    tensors = _tensors(described)
    digest = _digest(described, tensors)
    cast = {name: tensor.to(device, TORCH_DTYPES[dtype]) for name, tensor in tensors.items()}
    with torch.device("meta"):
        network = build(role, described.config)
    network.load_state_dict(cast, assign=True)
    return Checkpoint(described, digest, network.requires_grad_(False).eval())


def create(
    folder: Path,
    role: Role,
    config: BlipConfig,
    tokenizer: WordPiece,
    *,
    seed: int,
    settings: Settings | None = None,
) -> None:
    """Write a model with random weights, the same for the same seed, as a Hugging Face folder."""
    with torch.device("meta"):
        network = build(role, config)
    network.to_empty(device="cpu")
    _initialise(network, config, torch.Generator().manual_seed(seed))
    size = config.vision_config.image_size
    settings = settings or Settings(itm_first_token="enc")
    save(folder, network, config, tokenizer, Preprocess(size, size), settings)


def save(
    folder: Path,
    network: nn.Module,
    config: BlipConfig,
    tokenizer: WordPiece,
    preprocess: Preprocess,
    settings: Settings,
) -> None:
    """Write a network as a Hugging Face folder, which transformers' own classes load too."""
    role: Role = "captioner" if isinstance(network, CaptionNetwork) else "filter"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    block = config.to_dict() | {"architectures": [ARCHITECTURES[role]], "tie_word_embeddings": True}
    block["capfilt"] = {
        "itm_first_token": settings.itm_first_token,
        "length_rule": settings.length_rule,
    }
    _write_json(folder / "config.json", block)
    _write_json(folder / "preprocessor_config.json", preprocess.to_dict())
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")


def _initialise(network: nn.Module, config: BlipConfig, generator: torch.Generator) -> None:
    """Fill a network with BERT's and ViT's usual random weights."""
    for name, tensor in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(tensor)
        elif "norm" in name.lower():
            nn.init.ones_(tensor)
        else:
            part = config.vision_config if name.startswith("vision") else config.text_config
            nn.init.normal_(tensor, std=part.initializer_range, generator=generator)


def _role(folder: Path, block: Mapping[str, Any]) -> Role:
    named = block.get("architectures")
    for role, architecture in ARCHITECTURES.items():
        if isinstance(named, list) and architecture in named:
            return role
    raise CheckpointError(
        f"{folder}/config.json names the architectures {named}; expected one of "
        f"{list(ARCHITECTURES.values())}. Give a BLIP captioning or retrieval checkpoint."
    )


def _config(block: dict[str, Any]) -> BlipConfig:
    """Build the config; ValueError for what this network does not compute."""
    try:
        config = BlipConfig.from_dict(dict(block))
    except Exception as error:  # transformers raises its own classes for a field of a wrong type
        raise ValueError(f"config.json: {error}") from error
    for part, keys in ((config.vision_config, _VISION_KEYS), (config.text_config, _TEXT_KEYS)):
        for key in keys:
            value = getattr(part, key)
            if not isinstance(value, int | float) or value < (0 if key.endswith("id") else 1e-30):
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
    return config


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


def _processor(folder: Path) -> tuple[dict[str, Any], str]:
    """Find the image processor's settings and the name of their file."""
    if (folder / "preprocessor_config.json").is_file():
        return _read_json(folder, "preprocessor_config.json"), "preprocessor_config.json"
    if (folder / "processor_config.json").is_file():
        block = _read_json(folder, "processor_config.json").get("image_processor", {})
        return block, "processor_config.json"
    return {}, "default"


def _tensors(described: Description) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = build(described.role, described.config).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    return arrange(read_tensors(described.folder), shapes, described.folder)


def _digest(described: Description, tensors: Mapping[str, Tensor]) -> str:
    vision, text = described.config.vision_config, described.config.text_config
    facts = {
        "role": described.role,
        "vision": {key: getattr(vision, key) for key in _VISION_KEYS},
        "text": {key: getattr(text, key) for key in _TEXT_KEYS},
        "itm_first_token": described.settings.itm_first_token,
        "length_rule": described.settings.length_rule,
        "preprocess": described.preprocess.to_dict(),
    }
    total = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    total.update(tokenizers.source(described.folder).read_bytes())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        block = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} has no {name}. Give a Hugging Face BLIP folder or hub id."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(block, dict):
        raise CheckpointError(f"{path} holds a {type(block).__name__}; expected an object")
    return block


def _write_json(path: Path, block: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(block, indent=2, sort_keys=True) + "\n", encoding="utf-8")
