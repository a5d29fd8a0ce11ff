"""Checkpoints: loaded, refused, described, saved; and transformers reads what we save."""

import json
from pathlib import Path

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
from models.blip.networks import MatchNetwork
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.description import describe
from models.checkpoints.folder import CheckpointContent, write
from models.checkpoints.locate import CheckpointError


def save(
    folder: Path, loaded: checkpoint.Checkpoint, training: dict[str, torch.Tensor] | None = None
) -> None:
    about, tensors = loaded.description, loaded.network.state_dict()
    parts = (about.role, about.config, about.settings, about.preprocess, about.tokenizer)
    write(folder, CheckpointContent(*parts, tensors, training or {}))


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
    network = load(folders["filter"], "filter").network_as(MatchNetwork)
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
    names: dict[Role, str] = {"captioner": "captioning", "filter": "retrieval"}
    for role, name in names.items():
        first = load(parity / "hf" / name, role)
        told = first.description
        save(tmp_path / role, first)
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
    queue = {"image_queue": torch.randn(64, 5)} if role == "pretrain" else {}
    save(tmp_path / "saved", first, queue)
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


def test_a_description_is_not_read_again(copy: Path) -> None:
    described, whole = describe(copy), checkpoint.info(copy)
    (copy / "config.json").unlink()
    assert checkpoint.info(described) == whole


def test_settings_reach_the_checkpoint(
    tmp_path: Path, config: BlipConfig, words: WordPiece
) -> None:
    settings = Settings("cls", "total")
    checkpoint.create(tmp_path, "filter", config, words, seed=0, settings=settings)
    assert describe(tmp_path).settings == settings
    assert tokenizer.load(tmp_path).dec_id == words.dec_id
