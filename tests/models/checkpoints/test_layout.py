"""Role and sizes from tensors: every model of the original, at its real sizes."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.blip.config import Role
from models.checkpoints.layout import (
    config_of,
    read_stated,
    role_of_tensors,
    sizes_of,
    training_state,
)
from models.checkpoints.locate import CheckpointError
from models.checkpoints.original import rename
from models.checkpoints.role_networks import build, ties
from models.checkpoints.weights import ALIASES

Shapes = dict[str, tuple[int, ...]]
ROLES: dict[str, Role] = {
    "BLIP_Decoder": "captioner",
    "BLIP_Base": "features",
    "BLIP_ITM": "filter",
    "BLIP_Pretrain": "pretrain",
    "BLIP_Retrieval": "filter",
    "BLIP_VQA": "vqa",
    "BLIP_NLVR": "nlvr",
}
IMAGE_SIZES = {"BLIP_Base": 224, "BLIP_Pretrain": 224, "BLIP_VQA": 480}
QUEUES = {"image_queue", "text_queue", "queue_ptr"}


@pytest.fixture(scope="module")
def layouts(parity: Path) -> dict[str, Shapes]:
    with gzip.open(parity / "base_layouts.json.gz") as file:
        read = json.load(file)
    return {
        model: {rename(name): tuple(shape) for name, shape in shapes.items()}
        for model, shapes in read.items()
    }


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("name", ROLES)
def test_every_tensor_of_the_original_has_its_place(
    layouts: dict[str, Shapes], parity: Path, name: str, size: str
) -> None:
    shapes = layouts[f"{name}/{size}"]
    role = role_of_tensors(shapes)
    assert role == ROLES[name]
    config, _ = config_of(shapes, {}, sep_id=102, pad_id=0)
    with torch.device("meta"):
        network = build(role, config)
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    second = ties(network)
    constants = {key for key in shapes if key.endswith(".position_ids")}
    aside = QUEUES if role == "pretrain" else set(training_state(shapes))
    theirs = shapes.keys() - constants - ALIASES.keys() - second.keys() - aside
    assert ours == {key: shapes[key] for key in theirs}
    for tied, first in (second | ALIASES).items():
        assert tied not in shapes or shapes[tied] == shapes[first]
    heads = (config.vision_config.num_attention_heads, config.text_config.num_attention_heads)
    assert heads == ((16, 12) if size == "large" else (12, 12))
    assert config.vision_config.image_size == IMAGE_SIZES.get(name, 384)
    told = json.loads((parity / "base_layouts_meta.json").read_text())[f"{name}/{size}"]
    kept = told["unique_parameter_count"]
    if name == "BLIP_Retrieval":
        kept = told["trainable_count"] - 1  # the temperature is left out
    assert sum(value.numel() for value in network.parameters()) == kept


def test_what_training_alone_needs(layouts: dict[str, Shapes]) -> None:
    shapes = layouts["BLIP_Retrieval/base"]
    found = set(training_state(shapes))
    queues = {"temp", "image_queue", "text_queue", "idx_queue", "ptr_queue"}
    copies = {name for name in shapes if name.split(".")[0].endswith("_m")}
    assert found == queues | copies
    assert {name.replace("_m.", ".", 1) for name in copies} < shapes.keys()
    assert not training_state(layouts["BLIP_ITM/base"])


@pytest.mark.parametrize("name", ["decoder", "itm", "nlvr", "pretrain", "retrieval", "vqa"])
def test_stated_sizes_agree_with_the_tensors(parity: Path, name: str) -> None:
    table = torch.load(parity / f"{name}.pth", weights_only=True)["model"]
    shapes = {rename(key): tuple(tensor.shape) for key, tensor in table.items()}
    said = json.loads((parity / f"{name}.json").read_text())["config"]
    special = {"sep_id": said["tokenizer"]["sep_id"], "pad_id": said["tokenizer"]["pad_id"]}
    config, sources = config_of(shapes, read_stated(parity / f"{name}.json"), **special)
    assert config.vision_config.num_attention_heads == said["vision"]["num_heads"]
    assert config.text_config.num_attention_heads == said["text"]["num_attention_heads"]
    assert config.text_config.intermediate_size == said["text"]["intermediate_size"]
    assert config.vision_config.layer_norm_eps == 1e-6
    assert config.text_config.layer_norm_eps == 1e-12
    assert sources["vision_heads"] == sources["text_heads"] == "config"
    if "embed_dim" in said:
        assert config.image_text_hidden_size == said["embed_dim"]
    with pytest.raises(CheckpointError, match=r"width \d+ is no multiple of 64.*--config"):
        config_of(shapes, {}, **special)


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_stated_size_that_lies_is_named(layouts: dict[str, Shapes], tmp_path: Path) -> None:
    shapes = layouts["BLIP_ITM/base"]
    lies = {"vision": {"depth": 24, "mlp_ratio": 2, "embed_dim": 768}, "text": {"vocab_size": 7}}
    stated = read_stated(write(tmp_path / "lies.json", lies))
    with pytest.raises(CheckpointError) as caught:
        config_of(shapes, stated, sep_id=102, pad_id=0)
    assert "vision num_hidden_layers is 24; the tensors have 12" in str(caught.value)
    assert "vision intermediate_size is 1536; the tensors have 3072" in str(caught.value)
    assert "text vocab_size is 7; the tensors have 30524" in str(caught.value)
    heads = read_stated(write(tmp_path / "h.json", {"config": {"vision": {"num_heads": 6}}}))
    config, sources = config_of(shapes, heads, sep_id=102, pad_id=0)
    assert config.vision_config.num_attention_heads == 6
    assert (sources["vision_heads"], sources["text_heads"]) == ("config", "width / 64")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[" * 100_000,
        [],
        {},
        {"vision": []},
        {"vision": {}, "text": 3},
        {"vision": {"num_heads": 0}},
        {"vision": {"num_heads": "4"}},
        {"vision": {"num_heads": True}},
        {"vision": {"layer_norm_eps": float("nan")}},
        {"vision": {"embed_dim": 8, "mlp_ratio": float("inf")}},
        {"text": {"hidden_size": 10**12}},
    ],
)
def test_a_stated_config_that_cannot_be_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match=r"c\.json"):
        read_stated(write(tmp_path / "c.json", content))


def test_sizes_need_their_tensors(layouts: dict[str, Shapes]) -> None:
    shapes = layouts["BLIP_Decoder/base"]
    patch = "vision_model.embeddings.patch_embedding.weight"
    places = "vision_model.embeddings.position_embedding"
    cases: list[tuple[dict[str, Any], str]] = [
        ({patch: None}, "patch_embedding.weight, which tells the sizes, is missing"),
        ({patch: (768, 3)}, "is of shape"),
        ({patch: (0, 3, 16, 16)}, "is of shape"),
        ({places: (1, 500, 768)}, "500 positions are no square"),
    ]
    for changes, message in cases:
        bent = {name: shape for name, shape in (shapes | changes).items() if shape is not None}
        with pytest.raises(CheckpointError, match=message):
            sizes_of(bent)
    with pytest.raises(CheckpointError, match=r"layers\.0.*missing"):
        sizes_of({name: shape for name, shape in shapes.items() if ".layers." not in name})


def test_a_role_needs_a_text_model() -> None:
    with pytest.raises(CheckpointError, match="neither text_encoder nor text_decoder"):
        role_of_tensors(["vision_model.embeddings.class_embedding"])
