"""Networks that several tests of this room compare: transformers' own, the original's, and ours."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval

from models import checkpoint
from models.blip import build
from models.config import Role, blip_config
from models.tokenizer import WordPiece, train

# the original's names -> Hugging Face's, for the vision tower; the text towers have the same names
_RENAMES = (
    (r"^visual_encoder\.", "vision_model."),
    (r"vision_model\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"vision_model\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"vision_model\.patch_embed\.proj", "vision_model.embeddings.patch_embedding"),
    (r"vision_model\.blocks", "vision_model.encoder.layers"),
    (r"vision_model\.norm", "vision_model.post_layernorm"),
    (r"\.attn\.qkv", ".self_attn.qkv"),
    (r"\.attn\.proj", ".self_attn.projection"),
    (r"\.norm([12])\.", r".layer_norm\1."),
)


@pytest.fixture(scope="session")
def parity(data_dir: Path) -> Path:
    return data_dir / "parity"


@pytest.fixture(scope="session")
def images(parity: Path) -> Tensor:
    """uint8 (B, 3, S, S)."""
    return load_file(parity / "images.safetensors")["images_u8"]


@pytest.fixture(scope="session")
def hf_values(parity: Path) -> dict[str, Tensor]:
    return load_file(parity / "hf.safetensors")


@pytest.fixture(scope="session")
def hf_facts(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "hf.json").read_text())


@pytest.fixture(scope="session")
def hf_captioner(parity: Path) -> nn.Module:
    return BlipForConditionalGeneration.from_pretrained(parity / "hf/captioning").eval()


@pytest.fixture(scope="session")
def hf_matcher(parity: Path) -> nn.Module:
    return BlipForImageTextRetrieval.from_pretrained(parity / "hf/retrieval").eval()


@pytest.fixture(scope="session")
def caption_checkpoint(parity: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(parity / "hf/captioning", "captioner", dtype="fp32", device="cpu")


@pytest.fixture(scope="session")
def match_checkpoint(parity: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(parity / "hf/retrieval", "filter", dtype="fp32", device="cpu")


@pytest.fixture(scope="session")
def original(parity: Path) -> Callable[[str, Role], nn.Module]:
    """Load an original .pth into our network by renaming its tensors."""

    def load(name: str, role: Role) -> nn.Module:
        facts = json.loads((parity / f"{name}.json").read_text())
        network = build(role, _original_config(facts["config"]))
        tensors = torch.load(parity / f"{name}.pth", weights_only=True)["model"]
        wanted = network.state_dict()
        renamed = {_rename(key): tensor for key, tensor in tensors.items()}
        network.load_state_dict({key: renamed[key] for key in wanted})
        return network.eval()

    return load


@pytest.fixture(scope="session")
def words() -> WordPiece:
    corpus = ["a red ring above a blue star", "two small dogs sit near an old wooden house"] * 3
    return train(corpus, 120)


@pytest.fixture(scope="session")
def config(words: WordPiece) -> BlipConfig:
    return blip_config("tiny", vocab_size=words.size, sep_id=words.sep_id, pad_id=words.pad_id)


@pytest.fixture(scope="session")
def folders(
    tmp_path_factory: pytest.TempPathFactory, words: WordPiece, config: BlipConfig
) -> dict[Role, Path]:
    """A random tiny checkpoint of each role."""
    roles: tuple[Role, ...] = ("captioner", "filter")
    found = {role: tmp_path_factory.mktemp(role) for role in roles}
    for role, folder in found.items():
        checkpoint.create(folder, role, config, words, seed=3)
    return found


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _original_config(facts: dict[str, Any]) -> BlipConfig:
    vision, text, words = facts["vision"], facts["text"], facts["tokenizer"]
    return BlipConfig(
        vision_config={
            "hidden_size": vision["embed_dim"],
            "intermediate_size": vision["embed_dim"] * vision["mlp_ratio"],
            "num_hidden_layers": vision["depth"],
            "num_attention_heads": vision["num_heads"],
            "image_size": vision["img_size"],
            "patch_size": vision["patch_size"],
            "layer_norm_eps": vision["layer_norm_eps"],
        },
        text_config={
            **{key: text[key] for key in ("hidden_size", "num_attention_heads", "vocab_size")},
            **{key: text[key] for key in ("num_hidden_layers", "intermediate_size")},
            **{key: text[key] for key in ("layer_norm_eps", "max_position_embeddings")},
            "bos_token_id": words["bos_id"],
            "sep_token_id": words["sep_id"],
            "pad_token_id": words["pad_id"],
        },
        image_text_hidden_size=facts.get("embed_dim", 256),
    )


@pytest.fixture(scope="session")
def normalise() -> Callable[[Tensor], Tensor]:
    """uint8 images to the fp32 pixels that the references were made from."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    return lambda images: (images.float() / 255 - mean) / std
