"""A folder's settings: found, refused, and summed up in the digest."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.blip.config import Role
from models.checkpoints import checkpoint
from models.checkpoints.description import describe
from models.checkpoints.locate import CheckpointError


def load(folder: Path, role: Role = "captioner") -> checkpoint.Checkpoint:
    return checkpoint.load(folder, role, dtype="fp32", device="cpu")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_digest_follows_the_content_not_the_place(copy: Path, folders: dict[Role, Path]) -> None:
    known = checkpoint.info(folders["captioner"]).digest
    assert checkpoint.info(copy).digest == known
    assert load(copy).digest == known
    edit(copy / "config.json", transformers_version="0.0", _name_or_path="/elsewhere")
    assert checkpoint.info(copy).digest == known
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(dict(reversed(tensors.items())), copy / "pytorch_model.bin")
    assert checkpoint.info(copy).digest == known


@pytest.mark.parametrize("change", ["weight", "eps", "setting", "tokenizer", "pixels"])
def test_digest_changes_with_what_changes_output(
    copy: Path, folders: dict[Role, Path], change: str
) -> None:
    if change == "weight":
        tensors = load_file(copy / "model.safetensors")
        tensors["vision_model.post_layernorm.bias"][5] += 1e-6
        save_file(tensors, copy / "model.safetensors")
    elif change == "eps":
        vision = json.loads((copy / "config.json").read_text())["vision_config"]
        edit(copy / "config.json", vision_config=vision | {"layer_norm_eps": 1e-5})
    elif change == "setting":
        edit(copy / "config.json", capfilt={"length_rule": "total"})
    elif change == "tokenizer":
        path = copy / "tokenizer.json"
        path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false'))
    else:
        edit(copy / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    assert checkpoint.info(copy).digest != checkpoint.info(folders["captioner"]).digest


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        (None, {"architectures": 7}),
        (None, {"model_type": "blip", "vision_config": "large"}),
        (None, {"capfilt": {"itm_first_token": "dec"}}),
        (None, {"capfilt": ["enc"]}),
        ("vision_config", {"num_hidden_layers": 10**9}),
        ("vision_config", {"patch_size": 0}),
        ("vision_config", {"image_size": [64, 64]}),
        ("vision_config", {"hidden_act": "quick_gelu"}),
        ("text_config", {"num_attention_heads": 3}),
        ("text_config", {"vocab_size": 20}),
        ("text_config", {"sep_token_id": 102}),
        ("text_config", {"bos_token_id": None}),
        ("text_config", {"layer_norm_eps": "1e-12"}),
    ],
)
def test_a_config_that_cannot_be_is_refused(
    copy: Path, part: str | None, changes: dict[str, Any]
) -> None:
    path = copy / "config.json"
    if part is not None:
        changes = {part: json.loads(path.read_text())[part] | changes}
    edit(path, **changes)
    with pytest.raises(CheckpointError, match=str(copy)):
        load(copy)


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("captioning", "filter", "holds a captioner .* expected a filter"),
        ("retrieval", "captioner", "holds a filter .* expected a captioner"),
        ("vqa", "captioner", "holds a VQA model .*BlipForQuestionAnswering"),
        ("captioning", "vqa", "expected a VQA model .*Salesforce/blip-vqa-base.*finetune vqa"),
    ],
)
def test_the_wrong_role_is_refused(parity: Path, name: str, role: Role, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(parity / "hf" / name, role)


def test_a_folder_cannot_bring_its_own_code(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    automatic = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    edit(copy / "config.json", auto_map=automatic)
    edit(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    assert load(copy).digest


def test_processor_settings_are_found_in_either_file(parity: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(parity / "hf/captioning", tmp_path / "copy"))
    first = describe(folder)
    (folder / "preprocessor_config.json").unlink()
    second = describe(folder)
    (folder / "processor_config.json").unlink()
    third = describe(folder)
    assert first.preprocess == second.preprocess == third.preprocess
    origins = [told.sources["image_size"] for told in (first, second, third)]
    assert origins == ["preprocessor_config.json", "processor_config.json", "default"]
