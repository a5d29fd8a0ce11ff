"""Checkpoints: plain Hugging Face BLIP folders, read without running anything that they contain.

Weights come from safetensors, or from a pickle restricted to tensors. What a folder lacks, adds or
misshapes is one CheckpointError.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.config import TORCH_DTYPES, DtypeChoice, Role, Settings, resolve_dtype
from models.blip.positions import GRIDS, interpolate_all
from models.blip.preprocess import Preprocess
from models.blip.tokenizer import WordPiece
from models.checkpoints.description import Description, describe, digest, resized
from models.checkpoints.folder import TRAINING, CheckpointContent, write
from models.checkpoints.locate import CheckpointError
from models.checkpoints.role_networks import build, ties
from models.checkpoints.weights import arrange, read_file, read_tensors
from models.training.contrast import ContrastNetwork

# the most that a file may have: numbers of 8 bytes, a tied tensor under both names; and headers
_BYTES_A_NUMBER, _BYTES_BESIDE = 16, 64 << 20
_TRAINING_BYTES = 4 << 30  # BLIP's queues have 0.1 GB

NetworkT = TypeVar("NetworkT", bound=nn.Module)


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
    question_mask: str
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model in memory: settings, digest and network, in evaluation mode.

    `training` is what a pre-training checkpoint holds beside the network: its queues.
    """

    description: Description
    digest: str
    network: nn.Module
    training: Mapping[str, Tensor] = field(default_factory=dict)

    def network_as(self, *kinds: type[NetworkT]) -> NetworkT:
        """Return the network as one of these classes; CheckpointError if it is of another."""
        if not isinstance(self.network, kinds):
            raise CheckpointError(
                f"{self.description.folder} was loaded as a {type(self.network).__name__}; "
                f"expected a {' or '.join(kind.__name__ for kind in kinds)}. "
                "Load a checkpoint of that role."
            )
        return self.network


def info(source: Path | Description) -> CheckpointInfo:
    """Read and check all of a checkpoint, a folder or what `describe` read of it, and describe it.

    Settings are not read again where `source` is a description.
    """
    described = source if isinstance(source, Description) else describe(source)
    tensors = _read_weights(described)
    vision, text = described.config.vision_config, described.config.text_config
    return CheckpointInfo(
        role=described.role,
        digest=digest(described, tensors),
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
        question_mask=described.settings.question_mask,
        sources=described.sources,
    )


def read(
    folder: Path, role: Role | None = None, image_size: int | None = None
) -> tuple[Description, dict[str, Tensor]]:
    """Read and check all of a folder, as it is on disk but for the images' size if one is given.

    `image_size` is in pixels; positions are stretched to it.
    """
    described = describe(folder, role)
    tensors = _read_weights(described)
    if image_size is None or image_size == described.config.vision_config.image_size:
        return described, tensors
    described = resized(described, image_size)
    return described, interpolate_all(
        tensors, image_size // described.config.vision_config.patch_size
    )


def _read_weights(described: Description) -> dict[str, Tensor]:
    """Read the tensors of a described folder, all that its network has and no others."""
    with torch.device("meta"):
        network = build(described.role, described.config)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    numbers = sum(math.prod(shape) for shape in expected.values())
    most_bytes = _BYTES_A_NUMBER * numbers + _BYTES_BESIDE
    tensors = read_tensors(described.folder, most_bytes)
    return arrange(tensors, expected, described.folder, ties=ties(network))


def read_training(folder: Path) -> dict[str, Tensor]:
    """Read what a pre-training folder holds beside the network; empty where there is nothing."""
    path = folder / TRAINING
    if not path.exists():
        return {}
    if path.stat().st_size > _TRAINING_BYTES:
        raise CheckpointError(f"{path} has more than {_TRAINING_BYTES >> 30} GiB")
    return read_file(path)


def load(
    folder: str | Path,
    role: Role,
    *,
    dtype: DtypeChoice = "auto",
    device: str | torch.device = "cpu",
    image_size: int | None = None,
) -> Checkpoint:
    """Load the model of a local folder; CheckpointError says what is wrong, another role too.

    `image_size`, in pixels, may differ from the folder's own.
    """
    folder = Path(folder)
    described, tensors = read(folder, role, image_size)
    total = digest(described, tensors)  # of the weights as stored: it is the same in every dtype
    wanted = TORCH_DTYPES[resolve_dtype(dtype, device)]
    cast = {name: tensor.to(device, wanted) for name, tensor in tensors.items()}
    with torch.device("meta"):  # its own weights would be made only to be thrown away
        network = build(role, described.config)
    network.load_state_dict(cast, assign=True)
    training = {name: tensor.to(device) for name, tensor in read_training(folder).items()}
    return Checkpoint(described, total, network.requires_grad_(False).eval(), training)


def create(
    folder: Path,
    role: Role,
    config: BlipConfig,
    tokenizer: WordPiece,
    *,
    seed: int,
    settings: Settings | None = None,
    position_range: float | None = None,
) -> None:
    """Write a model with random weights, the same for the same seed, as a Hugging Face folder.

    `position_range`: see `reset_weights`.
    """
    with torch.device("meta"):
        network = build(role, config)
    network.to_empty(device="cpu")
    reset_weights(network, config, torch.Generator().manual_seed(seed), position_range)
    size = config.vision_config.image_size
    settings = settings or Settings(itm_first_token="enc")
    preprocess, tensors = Preprocess(size, size), network.state_dict()
    write(folder, CheckpointContent(role, config, settings, preprocess, tokenizer, tensors))


def reset_weights(
    network: nn.Module,
    config: BlipConfig,
    generator: torch.Generator,
    position_range: float | None = None,
) -> None:
    """Fill a network with BERT's and ViT's usual random weights.

    `position_range`: standard deviation of the patches' positions, by default that of all weights.
    A patch's content is several times as large, so that a short training from nothing hardly finds
    out where things are; BLIP starts from a ViT that has learned it.
    """
    for name, tensor in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(tensor)
        elif "norm" in name.lower():
            nn.init.ones_(tensor)
        else:
            part = config.vision_config if name.startswith("vision") else config.text_config
            usual = float(part.initializer_range)
            std = position_range or usual if name in GRIDS else usual
            nn.init.normal_(tensor, std=std, generator=generator)
    if isinstance(network, ContrastNetwork):
        network.start()
