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

from models.blip import tokenizer as tokenizers
from models.blip.config import ORIGINAL, Role, blip_config
from models.blip.preprocess import Preprocess
from models.blip.tokenizer import WordPiece, train
from models.checkpoints import checkpoint, conversion
from models.checkpoints.conversion import Imported, import_original
from models.checkpoints.folder import CheckpointContent, write
from models.checkpoints.layout import config_of, read_stated
from models.checkpoints.original import read_original
from models.checkpoints.role_networks import build
from tests.support.more_guests import MORE_CAPTIONERS
from tests.support.more_scorers import MORE_SCORERS
from tests.support.tiny_guests import CAPTIONERS
from tests.support.tiny_scorers import SCORERS

# our names -> the original's, the way back from what is under test
_BACK = (
    (r"^vision_model\.post_layernorm\.", "visual_encoder.norm."),
    (r"^vision_model\.embeddings\.class_embedding$", "visual_encoder.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "visual_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual_encoder.patch_embed.proj."),
    (r"^vision_model\.encoder\.layers\.", "visual_encoder.blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.projection\.", ".attn.proj."),
    (r"\.self_attn\.qkv\.", ".attn.qkv."),
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
def hf_captioner(parity: Path) -> BlipForConditionalGeneration:
    return BlipForConditionalGeneration.from_pretrained(parity / "hf/captioning").eval()


@pytest.fixture(scope="session")
def hf_matcher(parity: Path) -> BlipForImageTextRetrieval:
    return BlipForImageTextRetrieval.from_pretrained(parity / "hf/retrieval").eval()


@pytest.fixture(scope="session")
def caption_checkpoint(parity: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(parity / "hf/captioning", "captioner", dtype="fp32", device="cpu")


@pytest.fixture(scope="session")
def match_checkpoint(parity: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(parity / "hf/retrieval", "filter", dtype="fp32", device="cpu")


@pytest.fixture(scope="session")
def original(
    parity: Path, original_config: Callable[[str], BlipConfig]
) -> Callable[[str, Role], nn.Module]:
    """Load an original .pth into the network of a role."""

    def load(name: str, role: Role) -> nn.Module:
        tensors = read_original(parity / f"{name}.pth")
        network = build(role, original_config(name))
        network.load_state_dict({key: tensors[key] for key in network.state_dict()})
        return network.eval()

    return load


@pytest.fixture(scope="session")
def original_folder(
    parity: Path,
    original: Callable[[str, Role], nn.Module],
    original_config: Callable[[str], BlipConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Role], Path]:
    """Write an original .pth as a folder of ours, with the vocabulary of the references."""
    found: dict[tuple[str, Role], Path] = {}

    def folder(name: str, role: Role) -> Path:
        if (name, role) not in found:
            config = original_config(name)
            size = config.vision_config.image_size
            words = tokenizers.load(parity, config.text_config.bos_token_id)
            path = found[name, role] = tmp_path_factory.mktemp(f"{name}_{role}")
            tensors = original(name, role).state_dict()
            preprocess = Preprocess(size, size)
            write(path, CheckpointContent(role, config, ORIGINAL, preprocess, words, tensors))
        return found[name, role]

    return folder


@pytest.fixture(scope="session")
def reference(parity: Path) -> Callable[[str], tuple[dict[str, Tensor], dict[str, float]]]:
    """Read the tensors of a reference, and the absolute tolerance of each of its outputs."""

    def read(name: str) -> tuple[dict[str, Tensor], dict[str, float]]:
        facts = json.loads((parity / f"{name}.json").read_text())["tolerance"]
        limits = {f"out.{key}": float(value["atol"]) for key, value in facts.items()}
        return load_file(parity / f"{name}.safetensors"), limits

    return read


@pytest.fixture(scope="session")
def original_config(parity: Path) -> Callable[[str], BlipConfig]:
    """Read the sizes of an original model."""

    def read(name: str) -> BlipConfig:
        path = parity / f"{name}.json"
        words = json.loads(path.read_text())["config"]["tokenizer"]
        tensors = read_original(parity / f"{name}.pth")
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        special = {"sep_id": words["sep_id"], "pad_id": words["pad_id"]}
        return config_of(shapes, read_stated(path), **special)[0]

    return read


@pytest.fixture(scope="session")
def vocabulary(parity: Path) -> WordPiece:
    return conversion.vocabulary(parity / "vocab.txt")


@pytest.fixture(scope="session")
def imported(parity: Path, vocabulary: WordPiece) -> Callable[[str], Imported]:
    """Import an original file, with what is known of it."""

    def read(name: str) -> Imported:
        stated = read_stated(parity / f"{name}.json")
        return import_original(parity / f"{name}.pth", vocabulary, stated)

    return read


@pytest.fixture(scope="session")
def imported_folders(
    imported: Callable[[str], Imported], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A folder of ours from every original file."""
    top = tmp_path_factory.mktemp("imported")
    found = {}
    for name in ("decoder", "itm", "nlvr", "pretrain", "retrieval", "vqa"):
        found[name] = top / name
        write(found[name], imported(name).content)
    return found


@pytest.fixture(scope="session")
def as_original() -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Give tensors under our names those of the original."""

    def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, tensor in tensors.items():
            for pattern, replacement in _BACK:
                name = re.sub(pattern, replacement, name)
            found[name] = tensor
        return found

    return translate


@pytest.fixture(scope="session")
def words() -> WordPiece:
    corpus = ["a red ring above a blue star", "two small dogs sit near an old wooden house"] * 3
    return train(corpus, 120)


@pytest.fixture(scope="session")
def config(words: WordPiece) -> BlipConfig:
    return blip_config("tiny", **words.config_fields)


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


@pytest.fixture(scope="session")
def normalise() -> Callable[[Tensor], Tensor]:
    """uint8 images to the fp32 pixels that the references were made from."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    return lambda images: (images.float() / 255 - mean) / std


@pytest.fixture(scope="session")
def guest_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Build the tiny folder of another maker's family, once; tests may not change it."""
    captioners = CAPTIONERS | MORE_CAPTIONERS
    builds = {name: build for name, (build, _) in captioners.items()} | SCORERS | MORE_SCORERS
    built: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in built:
            path = tmp_path_factory.mktemp(name)
            builds[name](path)
            built[name] = path
        return built[name]

    return folder
