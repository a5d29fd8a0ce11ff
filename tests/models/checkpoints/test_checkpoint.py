"""Checkpoints: loaded, refused, described, saved; and transformers reads what we save."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipImageProcessorPil,
)

from models.blip import tokenizer
from models.blip.config import ARCHITECTURES, Role, Settings
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.weights import CheckpointError


@pytest.fixture
def copy(folders: dict[Role, Path], tmp_path: Path) -> Path:
    """A captioner's folder to damage."""
    return Path(shutil.copytree(folders["captioner"], tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(folder: Path, role: Role = "captioner") -> checkpoint.Checkpoint:
    return checkpoint.load(folder, role, dtype="fp32", device="cpu")


@torch.no_grad()
def test_transformers_loads_a_captioner_that_we_made(folders: dict[Role, Path]) -> None:
    theirs, report = BlipForConditionalGeneration.from_pretrained(
        folders["captioner"], output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    pixels = torch.randn(2, 3, 64, 64)
    ids = torch.randint(5, 40, (2, 6))
    expected = theirs.eval()(pixel_values=pixels, input_ids=ids).logits
    found = load(folders["captioner"]).network(pixels, ids)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert found.std() > 0.01  # the transformers default of 1e-10 would leave the image out


@torch.no_grad()
def test_transformers_loads_a_filter_that_we_made(folders: dict[Role, Path]) -> None:
    theirs, report = BlipForImageTextRetrieval.from_pretrained(
        folders["filter"], output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    network = load(folders["filter"], "filter").network
    pixels, ids = torch.randn(2, 3, 64, 64), torch.randint(5, 40, (2, 6))
    mask = torch.ones_like(ids)
    expected = theirs.eval()(ids, pixels, attention_mask=mask, use_itm_head=False).itm_score
    image = network.image_features(network.vision_model(pixels))
    found = image @ network.text_features(ids, mask.bool()).T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_transformers_reads_our_tokenizer_and_preprocessing(
    folders: dict[Role, Path], words: WordPiece
) -> None:
    theirs = AutoTokenizer.from_pretrained(folders["captioner"])
    text = "a red ring above an unknown zebra"
    assert theirs(text)["input_ids"] == [words.cls_id, *words.encode([text])[0], words.sep_id]
    assert theirs.convert_tokens_to_ids("[DEC]") == words.dec_id
    assert BlipImageProcessorPil.from_pretrained(folders["filter"]).size["height"] == 64


def test_saving_what_was_loaded_changes_nothing(parity: Path, tmp_path: Path) -> None:
    for role, name in (("captioner", "captioning"), ("filter", "retrieval")):
        first = load(parity / "hf" / name, role)
        told = first.description
        arguments = (told.config, told.tokenizer, told.preprocess, told.settings)
        checkpoint.save(tmp_path / role, first.network, *arguments)
        second = load(tmp_path / role, role)
        old, new = first.network.state_dict(), second.network.state_dict()
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)
        assert second.description.settings == told.settings
        assert second.description.preprocess == told.preprocess


def test_creation_is_seeded(
    tmp_path: Path, folders: dict[Role, Path], config: BlipConfig, words: WordPiece
) -> None:
    state = torch.get_rng_state()
    checkpoint.create(tmp_path / "same", "captioner", config, words, seed=3)
    checkpoint.create(tmp_path / "other", "captioner", config, words, seed=4)
    assert torch.equal(state, torch.get_rng_state())
    known = checkpoint.info(folders["captioner"]).digest
    assert checkpoint.info(tmp_path / "same").digest == known
    assert checkpoint.info(tmp_path / "other").digest != known


@pytest.mark.parametrize("role", ARCHITECTURES)
def test_every_role_is_made_saved_and_loaded(
    tmp_path: Path, config: BlipConfig, words: WordPiece, role: Role
) -> None:
    checkpoint.create(tmp_path / "made", role, config, words, seed=3)
    first = load(tmp_path / "made", role)
    told = first.description
    arguments = (told.config, told.tokenizer, told.preprocess, told.settings)
    queue = {"image_queue": torch.randn(64, 5)} if role == "pretrain" else {}
    checkpoint.save(tmp_path / "saved", first.network, *arguments, training=queue)
    second = load(tmp_path / "saved", role)
    assert second.digest == first.digest
    old, new = first.network.state_dict(), second.network.state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert second.training.keys() == queue.keys()
    assert all(torch.equal(second.training[name], queue[name]) for name in queue)
    found = checkpoint.info(tmp_path / "saved")
    assert (found.role, found.itm_first_token) == (role, "enc")
    assert found.parameters == sum(tensor.numel() for tensor in first.network.parameters())


def test_a_new_pretraining_model_starts_as_training_does(
    tmp_path: Path, config: BlipConfig, words: WordPiece
) -> None:
    checkpoint.create(tmp_path, "pretrain", config, words, seed=3)
    state = load(tmp_path, "pretrain").network.state_dict()
    assert state["temp"] == pytest.approx(0.07)
    copies = [name for name in state if name.split(".")[0].endswith("_m")]
    assert copies
    assert all(torch.equal(state[name], state[name.replace("_m.", ".", 1)]) for name in copies)


def test_the_range_of_positions_changes_nothing_else(
    tmp_path: Path, config: BlipConfig, words: WordPiece
) -> None:
    name = "vision_model.embeddings.position_embedding"
    made = []
    for number, wanted in enumerate((None, 1.5)):
        folder = tmp_path / str(number)
        checkpoint.create(folder, "pretrain", config, words, seed=3, position_range=wanted)
        made.append(load(folder, "pretrain").network.state_dict())
    usual, wide = made
    changed = {key for key in usual if not torch.equal(usual[key], wide[key])}
    assert changed == {name, name.replace("_model.", "_model_m.")}
    scale = 1.5 / config.vision_config.initializer_range
    torch.testing.assert_close(wide[name], usual[name] * scale)
    assert torch.equal(wide[name.replace("_model.", "_model_m.")], wide[name])


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


def test_info_says_where_each_setting_came_from(parity: Path, folders: dict[Role, Path]) -> None:
    stored = json.loads((parity / "hf/retrieval/config.json").read_text())
    found = checkpoint.info(parity / "hf/retrieval")
    assert found.role == "filter"
    assert found.image_size == stored["vision_config"]["image_size"]
    assert found.text_heads == stored["text_config"]["num_attention_heads"]
    tensors = load_file(parity / "hf/retrieval/model.safetensors")
    assert found.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert (found.itm_first_token, found.length_rule) == ("cls", "generated")
    assert found.sources["itm_first_token"] == "default"
    made = checkpoint.info(folders["filter"])
    assert (made.itm_first_token, made.sources["itm_first_token"]) == ("enc", "config.json")


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("captioning", "filter", "holds a captioner .* expected a filter"),
        ("retrieval", "captioner", "holds a filter .* expected a captioner"),
        ("vqa", "captioner", "BlipForQuestionAnswering"),
    ],
)
def test_the_wrong_role_is_refused(parity: Path, name: str, role: Role, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(parity / "hf" / name, role)


def test_all_that_does_not_fit_is_listed(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["text_decoder.cls.predictions.bias"]
    tensors["vision_model.post_layernorm.weight"] = torch.ones(7)
    tensors["vision_model.spare"] = torch.ones(1)
    save_file(tensors, copy / "model.safetensors")
    for read in (load, checkpoint.info):
        with pytest.raises(CheckpointError) as caught:
            read(copy)
        assert "missing text_decoder.cls.predictions.bias" in str(caught.value)
        assert "unexpected vision_model.spare" in str(caught.value)
        assert "post_layernorm.weight has shape (7,); expected (128,)" in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "config.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(copy)


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


def test_a_folder_cannot_bring_its_own_code(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    automatic = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    edit(copy / "config.json", auto_map=automatic)
    edit(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    assert load(copy).digest


def test_a_description_is_not_read_again(copy: Path) -> None:
    described, whole = checkpoint.describe(copy), checkpoint.info(copy)
    (copy / "config.json").unlink()
    assert checkpoint.info(described) == whole


def test_processor_settings_are_found_in_either_file(parity: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(parity / "hf/captioning", tmp_path / "copy"))
    first = checkpoint.describe(folder)
    (folder / "preprocessor_config.json").unlink()
    second = checkpoint.describe(folder)
    (folder / "processor_config.json").unlink()
    third = checkpoint.describe(folder)
    assert first.preprocess == second.preprocess == third.preprocess
    origins = [told.sources["image_size"] for told in (first, second, third)]
    assert origins == ["preprocessor_config.json", "processor_config.json", "default"]


def test_settings_reach_the_checkpoint(
    tmp_path: Path, config: BlipConfig, words: WordPiece
) -> None:
    settings = Settings("cls", "total")
    checkpoint.create(tmp_path, "filter", config, words, seed=0, settings=settings)
    assert checkpoint.describe(tmp_path).settings == settings
    assert tokenizer.load(tmp_path).dec_id == words.dec_id
