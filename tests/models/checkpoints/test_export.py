"""Export: transformers' own classes load it, compute the same, and give it back unchanged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    PreTrainedModel,
)

from models.blip.config import Role
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.conversion import for_hugging_face, import_folder, import_original
from models.checkpoints.folder import write
from models.checkpoints.layout import Sizes
from models.checkpoints.locate import CheckpointError
from models.training.pretraining import PretrainNetwork

ROLES: dict[str, Role] = {"decoder": "captioner", "itm": "filter"}
HUGGING_FACE = {
    "captioner": BlipForConditionalGeneration,
    "filter": BlipForImageTextRetrieval,
    "vqa": BlipForQuestionAnswering,
}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@torch.no_grad()
@pytest.mark.parametrize("name", ["decoder", "itm"])
def test_round_by_hugging_face(
    imported_folders: dict[str, Path],
    tmp_path: Path,
    parity: Path,
    images: Tensor,
    normalise: Any,
    name: str,
) -> None:
    """Original -> ours -> transformers' class -> its folder -> ours: not a bit is lost."""
    role = ROLES[name]
    write(tmp_path / "out", for_hugging_face(import_folder(imported_folders[name]).content, None))
    theirs = through(HUGGING_FACE[role], tmp_path / "out", tmp_path / "hf")
    again = import_folder(tmp_path / "hf")
    assert equal(dict(again.content.tensors), checkpoint.read(imported_folders[name])[1])
    assert again.content.settings == import_folder(imported_folders[name]).content.settings
    assert checkpoint.info(tmp_path / "hf") == checkpoint.info(imported_folders[name])

    values = load_file(parity / f"{name}.safetensors")
    limits = json.loads((parity / f"{name}.json").read_text())["tolerance"]
    pixels = normalise(images[: len(values["in.attention_mask"])])
    if name == "decoder":
        ids, mask = values["in.input_ids"], values["in.attention_mask"]
        logits = theirs(pixel_values=pixels, input_ids=ids, attention_mask=mask).logits
        kept, key = mask.bool(), "logits"
        torch.testing.assert_close(
            logits[kept], values["out.logits"][kept], atol=limits[key]["atol"], rtol=1e-5
        )
    else:
        ids, mask = values["in.input_ids_enc"], values["in.attention_mask"]
        logits = theirs(ids, pixels, attention_mask=mask, use_itm_head=True).itm_score
        key = "pair_itm_logits_enc"
        torch.testing.assert_close(
            logits, values[f"out.{key}"], atol=limits[key]["atol"], rtol=1e-5
        )


@torch.no_grad()
def test_vqa_of_equal_widths_round_by_hugging_face(
    parity: Path,
    tmp_path: Path,
    vocabulary: WordPiece,
    hf_values: dict[str, Tensor],
    images: Tensor,
    as_original: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> None:
    tensors = load_file(parity / "hf/vqa/model.safetensors")
    torch.save({"model": as_original(tensors)}, tmp_path / "vqa.pth")
    block = json.loads((parity / "hf/vqa/config.json").read_text())
    stated: Sizes = {
        part: {
            key: block[f"{part}_config"][key] for key in ("num_attention_heads", "layer_norm_eps")
        }
        for part in ("vision", "text")
    }
    first = import_original(tmp_path / "vqa.pth", vocabulary, stated)
    assert first.content.role == "vqa"
    write(tmp_path / "ours", for_hugging_face(first.content, None))
    theirs = through(BlipForQuestionAnswering, tmp_path / "ours", tmp_path / "hf")
    assert equal(dict(import_folder(tmp_path / "hf").content.tensors), dict(first.content.tensors))
    assert equal(dict(first.content.tensors), tensors)
    pixels = first.content.preprocess.normalise(
        images[: len(hf_values["in.vqa_question_mask"])], torch.float32
    )
    answers = theirs.generate(
        hf_values["in.vqa_question_ids_enc"],
        pixels,
        attention_mask=hf_values["in.vqa_question_mask"],
        max_length=10,
        min_length=1,
        num_beams=1,
        do_sample=False,
    )
    expected = hf_values["out.vqa_ids_greedy"]
    assert torch.equal(answers, expected[:, : answers.shape[1]])


def through(kind: type[PreTrainedModel], source: Path, target: Path) -> PreTrainedModel:
    """Load a folder by a class of transformers, and save it from there."""
    network, report = kind.from_pretrained(source, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    network.save_pretrained(target)
    for name in ("tokenizer.json", "preprocessor_config.json"):
        shutil.copy(source / name, target / name)
    return network.eval()


@pytest.mark.parametrize("role", ["captioner", "filter"])
@torch.no_grad()
def test_a_part_of_pretraining_loads_in_transformers(
    imported_folders: dict[str, Path], tmp_path: Path, images: Tensor, normalise: Any, role: Role
) -> None:
    loaded = checkpoint.load(imported_folders["pretrain"], "pretrain", dtype="fp32", device="cpu")
    whole = loaded.network_as(PretrainNetwork)
    content = for_hugging_face(import_folder(imported_folders["pretrain"]).content, role)
    write(tmp_path / "out", content)
    theirs = through(HUGGING_FACE[role], tmp_path / "out", tmp_path / "hf")
    assert checkpoint.info(tmp_path / "out").role == role
    pixels, ids = normalise(images[:2]), torch.tensor([[2, 5, 9, 3], [2, 8, 7, 3]])
    mask = torch.ones_like(ids)
    states = whole.vision_model(pixels)
    if role == "captioner":
        cache = whole.text_decoder.bert.open_cache(states, 4)
        expected = whole.text_decoder.extend(ids, cache)
        found = theirs(pixel_values=pixels, input_ids=ids, attention_mask=mask).logits
    else:
        hidden = whole.text_encoder.encode(ids, mask.bool(), states)
        expected = whole.itm_head(hidden[:, 0])
        found = theirs(ids, pixels, attention_mask=mask).itm_score
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("pretrain", None, "no class for pre-training. Give --role captioner"),
        ("nlvr", None, "no class for the role nlvr"),
        ("vqa", None, r"equal widths only; here images have \d+ and questions \d+"),
        ("decoder", "filter", "a captioner holds no filter"),
    ],
)
def test_what_transformers_cannot_hold_is_refused(
    imported_folders: dict[str, Path], name: str, role: Role | None, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        for_hugging_face(import_folder(imported_folders[name]).content, role)
