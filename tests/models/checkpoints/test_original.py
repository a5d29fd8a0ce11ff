"""The original's files: names, tied tensors, and everything that is none of them refused."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.checkpoints.locate import CheckpointError
from models.checkpoints.original import read_original, rename

HEAD = "text_decoder.cls.predictions"


class Bomb:
    """Its unpickling makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pth"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
        ("visual_encoder_m.pos_embed", "vision_model_m.embeddings.position_embedding"),
        (
            "visual_encoder.patch_embed.proj.bias",
            "vision_model.embeddings.patch_embedding.bias",
        ),
        ("visual_encoder.blocks.11.norm2.bias", "vision_model.encoder.layers.11.layer_norm2.bias"),
        (
            "visual_encoder_m.blocks.0.attn.qkv.weight",
            "vision_model_m.encoder.layers.0.self_attn.qkv.weight",
        ),
        (
            "visual_encoder.blocks.3.attn.proj.weight",
            "vision_model.encoder.layers.3.self_attn.projection.weight",
        ),
        ("visual_encoder.blocks.3.mlp.fc1.bias", "vision_model.encoder.layers.3.mlp.fc1.bias"),
        ("visual_encoder.norm.weight", "vision_model.post_layernorm.weight"),
        ("text_encoder.encoder.layer.1.output.LayerNorm.bias",) * 2,
        ("text_proj_m.weight",) * 2,
        ("temp",) * 2,
    ],
)
def test_names(theirs: str, ours: str) -> None:
    assert rename(theirs) == ours


def test_tied_tensors_come_once_and_constants_not_at_all(path: Path) -> None:
    words, bias = torch.randn(5, 2), torch.randn(5)
    tensors = {
        "text_decoder.bert.embeddings.word_embeddings.weight": words,
        "text_decoder.bert.embeddings.position_ids": torch.arange(4)[None],
        f"{HEAD}.bias": bias,
        f"{HEAD}.decoder.weight": words,
        f"{HEAD}.decoder.bias": bias,
    }
    torch.save({"model": tensors, "epoch": 3}, path)
    found = read_original(path)
    expected = {"text_decoder.bert.embeddings.word_embeddings.weight": words, f"{HEAD}.bias": bias}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    torch.save({"model": tensors | {f"{HEAD}.decoder.bias": bias + 1}}, path)
    with pytest.raises(CheckpointError, match=r"decoder\.bias differs from .*, to which it is"):
        read_original(path)


def test_files_of_old_torch_are_read(path: Path) -> None:
    tensors = {"itm_head.bias": torch.ones(2)}
    torch.save({"model": tensors}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_original(path)["itm_head.bias"], tensors["itm_head.bias"])


def test_code_in_a_pickle_is_not_run(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "made"
    for content in ({"model": {"x": Bomb(target)}}, {"model": {}, "config": Bomb(target)}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="was not loaded: it could run code"):
            read_original(path)
    path.write_bytes(pickle.dumps({"model": Bomb(target)}))
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        read_original(path)
    assert not target.exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 700, -200, -1])
@pytest.mark.parametrize("new", [True, False])
def test_a_cut_file_is_refused(path: Path, kept: int, new: bool) -> None:
    tensors = {"a": torch.randn(200), "b": torch.randn(100)}
    torch.save({"model": tensors}, path, _use_new_zipfile_serialization=new)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        read_original(path)


@pytest.mark.parametrize(
    "content",
    [
        {"a": torch.ones(1)},
        {"model": [torch.ones(1)]},
        {"model": {"a": 1.0}},
        {"model": {7: torch.ones(1)}},
        {"model": {"a": torch.eye(3).to_sparse()}},
        {"model": {"a": torch.ones(1, device="meta")}},
        {"model": {"visual_encoder.cls_token": torch.ones(1)} | {
            "vision_model.embeddings.class_embedding": torch.ones(1)
        }},
        torch.ones(3),
        "text",
    ],
)  # fmt: skip
def test_what_is_no_table_of_plain_tensors_is_refused(path: Path, content: Any) -> None:
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        read_original(path)


def test_a_tensor_cannot_claim_more_than_its_file_holds(path: Path) -> None:
    huge: Tensor = torch.ones(1).expand(10**6, 10**6)
    torch.save({"model": {"itm_head.weight": huge}}, path)
    assert path.stat().st_size < 10**4
    with pytest.raises(CheckpointError, match=r"itm_head\.weight is no plain tensor of shape"):
        read_original(path)


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pth cannot be read: No such file"):
        read_original(path)
