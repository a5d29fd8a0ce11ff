"""Import and export: what is imported computes what its source does, and goes round unchanged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.blip import tokenizer
from models.blip.config import Role
from models.blip.networks import CaptionNetwork, FeatureNetwork
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint, conversion
from models.checkpoints.conversion import Imported, import_original
from models.checkpoints.folder import write
from models.checkpoints.layout import read_stated
from models.checkpoints.role_networks import ties
from models.decoding.config import Decoding
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from models.roles.vqa import VqaModel
from models.training.momentum import FeatureQueue
from models.training.pretraining import PretrainNetwork

NAMES: dict[str, Role] = {
    "decoder": "captioner",
    "itm": "filter",
    "nlvr": "nlvr",
    "pretrain": "pretrain",
    "retrieval": "filter",
    "vqa": "vqa",
}


def texts_of(words: WordPiece, rows: Tensor, prompt: int) -> list[str]:
    """Read rows of ids: a prompt of so many ids, text, [SEP], pads."""
    texts = []
    for row in rows[:, prompt:].tolist():
        texts.append(row[: row.index(words.sep_id)] if words.sep_id in row else row)
    return words.decode(texts)


def captions_of(captioner: BlipCaptioner, images: Tensor) -> list[str]:
    keys = [str(number) for number in range(len(images))]
    return [texts[0].text for texts in captioner.caption(images, keys, 1)]


@pytest.mark.parametrize("name", NAMES)
def test_every_original_becomes_a_folder(
    imported_folders: dict[str, Path],
    imported: Callable[[str], Imported],
    parity: Path,
    name: str,
    as_original: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    sizes_of: Callable[[str], dict[str, Any]],
) -> None:
    found = checkpoint.info(imported_folders[name])
    assert found.role == NAMES[name]
    assert (found.itm_first_token, found.length_rule) == ("enc", "total")
    sizes = sizes_of(name)
    assert found.vision_heads == sizes["vision"]["num_heads"]
    assert found.text_heads == sizes["text"]["num_attention_heads"]
    assert found.image_size == sizes["vision"]["img_size"]
    table = torch.load(parity / f"{name}.pth", weights_only=True)["model"]
    left_out = imported(name).left_out
    assert bool(left_out) == (name == "retrieval")
    loaded = checkpoint.load(imported_folders[name], found.role, dtype="fp32", device="cpu")
    state = loaded.network.state_dict() | dict(loaded.training)
    state |= {second: state[first] for second, first in ties(loaded.network).items()}
    back = as_original(state)
    for key, tensor in table.items():
        known = key.endswith("position_ids") or ".cls.predictions.decoder." in key
        if not known and "visual_encoder_m." not in key and key not in left_out:
            assert torch.equal(back[key], tensor), key


def test_a_pretraining_folder_keeps_momentum_and_queue(
    imported_folders: dict[str, Path], parity: Path
) -> None:
    table = torch.load(parity / "pretrain.pth", weights_only=True)["model"]
    loaded = checkpoint.load(imported_folders["pretrain"], "pretrain", dtype="fp32", device="cpu")
    queue = FeatureQueue.of(loaded.training)
    assert torch.equal(queue.image_queue, table["image_queue"])
    assert torch.equal(queue.queue_ptr, table["queue_ptr"])
    assert queue.valid().all()
    network = loaded.network_as(PretrainNetwork)
    norm = network.vision_model_m.post_layernorm.weight
    assert torch.equal(norm, table["visual_encoder_m.norm.weight"])
    assert network.text_decoder.bert.embeddings is network.text_encoder.embeddings


def test_captions_are_the_originals(
    imported_folders: dict[str, Path], parity: Path, images: Tensor, vocabulary: WordPiece
) -> None:
    facts = json.loads((parity / "decoder.json").read_text())
    values = load_file(parity / "decoder.safetensors")
    for name, stored in facts["generate"].items():
        decoding = decoding_of(facts, stored["args"])
        captioner = BlipCaptioner.load(imported_folders["decoder"], decoding=decoding, dtype="fp32")
        ids = values[f"out.ids_{name}"]
        expected = texts_of(vocabulary, ids, len(facts["prompt_ids"]))
        assert captions_of(captioner, images[: len(ids)]) == expected


def test_with_the_other_length_rule_captions_are_those_of_transformers(
    imported_folders: dict[str, Path],
    tmp_path: Path,
    parity: Path,
    images: Tensor,
    vocabulary: WordPiece,
) -> None:
    """The same weights were run by transformers' own class, prompt and limits alike."""
    facts = json.loads((parity / "decoder.json").read_text())
    stored = load_file(parity / "hf_decoder_crosscheck.safetensors")
    folder = Path(shutil.copytree(imported_folders["decoder"], tmp_path / "copy"))
    block = json.loads((folder / "config.json").read_text())
    block["capfilt"]["length_rule"] = "generated"
    (folder / "config.json").write_text(json.dumps(block))
    for name, asked in facts["generate"].items():
        captioner = BlipCaptioner.load(
            folder, decoding=decoding_of(facts, asked["args"]), dtype="fp32"
        )
        ids = stored[f"ids_{name}_hf523"]
        expected = texts_of(vocabulary, ids, len(facts["prompt_ids"]))
        assert captions_of(captioner, images[: len(ids)]) == expected, name


def decoding_of(facts: dict[str, Any], limits: dict[str, Any]) -> Decoding:
    """Say in our words how a reference was decoded; its limits count the prompt."""
    prompt = len(facts["prompt_ids"])
    return Decoding(
        method="beam" if limits["num_beams"] > 1 else "greedy",
        prompt=facts["prompt"],
        beams=limits["num_beams"],
        min_tokens=limits["min_length"] - prompt,
        max_tokens=limits["max_length"] - prompt,
        repetition_penalty=limits.get("repetition_penalty", 1.0),
    )


def test_the_length_rule_is_a_setting_of_the_folder(
    imported_folders: dict[str, Path],
    tmp_path: Path,
    parity: Path,
    images: Tensor,
    vocabulary: WordPiece,
) -> None:
    facts = json.loads((parity / "decoder.json").read_text())
    values = load_file(parity / "decoder.safetensors")
    stored = values["out.ids_beam3_generated_length_rule"]
    folder = Path(shutil.copytree(imported_folders["decoder"], tmp_path / "copy"))
    block = json.loads((folder / "config.json").read_text())
    block["capfilt"]["length_rule"] = "generated"
    (folder / "config.json").write_text(json.dumps(block))
    decoding = decoding_of(facts, facts["generate"]["beam3"]["args"])
    prompt = len(facts["prompt_ids"])
    captions = []
    for source in (folder, imported_folders["decoder"]):
        captioner = BlipCaptioner.load(source, decoding=decoding, dtype="fp32")
        captions.append(captions_of(captioner, images[: len(stored)]))
    assert captions[0] == texts_of(vocabulary, stored, prompt)
    assert captions[1] == texts_of(vocabulary, values["out.ids_beam3"], prompt)


def test_the_question_mask_is_a_setting_of_the_folder(
    imported_folders: dict[str, Path], tmp_path: Path, parity: Path, images: Tensor
) -> None:
    facts = json.loads((parity / "vqa.json").read_text())
    found, chances = {}, {}
    pictures = images[: len(facts["questions"])]
    for mask in ("applied", "ignored"):
        folder = Path(shutil.copytree(imported_folders["vqa"], tmp_path / mask))
        block = json.loads((folder / "config.json").read_text())
        assert block["capfilt"]["question_mask"] == "applied"
        block["capfilt"]["question_mask"] = mask
        (folder / "config.json").write_text(json.dumps(block))
        answerer = VqaModel.load(folder, dtype="fp32")
        answers = answerer.answer(pictures, facts["questions"])
        found[mask] = [answer.text.replace(" ", "") for answer in answers]
        chances[mask] = [answer.logprob for answer in answers]
    assert found["ignored"] == [text.replace(" ", "") for text in facts["generate_answers"]]
    assert chances["applied"] != pytest.approx(chances["ignored"], abs=1e-4)
    digests = {checkpoint.info(tmp_path / mask).digest for mask in found}
    assert len(digests) == 2


@torch.no_grad()
def test_the_feature_extractor_is_the_originals(
    damaged: Callable[..., Path],
    parity: Path,
    vocabulary: WordPiece,
    tmp_path: Path,
    images: Tensor,
    normalise: Any,
) -> None:
    values = load_file(parity / "itm.safetensors")
    limits = json.loads((parity / "itm.json").read_text())["tolerance"]
    heads = ("vision_proj", "text_proj", "itm_head")
    gone = {f"{head}__{part}": None for head in heads for part in ("weight", "bias")}
    path = damaged("itm", **gone)
    write(
        tmp_path / "out",
        import_original(path, vocabulary, read_stated(parity / "itm.json")).content,
    )
    loaded = checkpoint.load(tmp_path / "out", "features", dtype="fp32", device="cpu")
    network = loaded.network_as(FeatureNetwork)
    mask = values["in.attention_mask"][:1].bool()
    length = int(mask.sum())
    states = network.vision_model(normalise(images[:1]))
    for name, first, seen in (("text", "cls", None), ("multimodal", "enc", states)):
        ids = values[f"in.input_ids_{first}"][:1, :length]
        key = f"base_{name}_hidden"
        torch.testing.assert_close(
            network(ids, mask[:, :length], seen),
            values[f"out.{key}"],
            atol=limits[key]["atol"],
            rtol=1e-5,
        )


@pytest.mark.parametrize("first", ["cls", "enc"])
def test_scores_are_the_originals(
    imported_folders: dict[str, Path], tmp_path: Path, parity: Path, images: Tensor, first: str
) -> None:
    values = load_file(parity / "itm.safetensors")
    facts = json.loads((parity / "itm.json").read_text())
    folder = Path(shutil.copytree(imported_folders["itm"], tmp_path / "copy"))
    if first == "cls":  # imported files say enc
        block = json.loads((folder / "config.json").read_text())
        block["capfilt"]["itm_first_token"] = "cls"
        (folder / "config.json").write_text(json.dumps(block))
    # some hold signs, which a filter drops as BLIP's own reader does
    plain = [
        n for n, text in enumerate(facts["texts"]) if tokenizer.normalise(text) == text.lower()
    ]
    texts = [facts["texts"][number] for number in plain]
    pictures = images[: len(facts["texts"])]
    scores = Filter.load(folder, dtype="fp32").score(pictures, [texts] * len(pictures))
    logits = values[f"out.itm_logits_{first}"][:, plain]
    atol = facts["tolerance"][f"itm_logits_{first}"]["atol"]
    torch.testing.assert_close(
        torch.tensor([[score.itm_logit for score in row] for row in scores]),
        logits[..., 1] - logits[..., 0],
        atol=2 * atol,  # of two logits
        rtol=1e-5,
    )
    torch.testing.assert_close(
        torch.tensor([[score.itc for score in row] for row in scores]),
        values["out.itc_cosine"][:, plain],
        atol=facts["tolerance"]["itc_cosine"]["atol"],
        rtol=1e-5,
    )


def test_a_tokenizer_folder_serves_as_well(
    parity: Path, vocabulary: WordPiece, sizes_of: Callable[[str], dict[str, Any]]
) -> None:
    found = conversion.vocabulary(parity / "hf/captioning")
    told = sizes_of("decoder")["tokenizer"]
    sizes = (told["vocab_size_with_specials"], told["bos_id"], told["enc_id"])
    assert (found.size, found.dec_id, found.enc_id) == sizes
    text = "two birds flying over the sea"
    assert found.encode([text]) == vocabulary.encode([text])


@torch.no_grad()
def test_a_larger_image_size_is_the_originals(
    imported_folders: dict[str, Path],
    parity: Path,
    vocabulary: WordPiece,
    normalise: Any,
    tmp_path: Path,
) -> None:
    values = load_file(parity / "decoder.safetensors")
    limits = json.loads((parity / "decoder.json").read_text())["tolerance"]
    big = normalise(load_file(parity / "images.safetensors")["images_big_u8"])
    stated, size = read_stated(parity / "decoder.json"), big.shape[-1]
    write(
        tmp_path / "big",
        import_original(parity / "decoder.pth", vocabulary, stated, image_size=size).content,
    )
    by_loading = checkpoint.load(
        imported_folders["decoder"], "captioner", dtype="fp32", device="cpu", image_size=size
    )
    by_import = checkpoint.load(tmp_path / "big", "captioner", dtype="fp32", device="cpu")
    for loaded in (by_loading, by_import):
        assert loaded.description.config.vision_config.image_size == size
        assert loaded.description.preprocess.width == size
        states = loaded.network_as(CaptionNetwork).vision_model(big)
        key = "big_image_embeds"
        torch.testing.assert_close(
            states, values[f"out.{key}"], atol=limits[key]["atol"], rtol=1e-5
        )
        ids, mask = (
            values["in.input_ids"][: len(big)],
            values["in.attention_mask"][: len(big)].bool(),
        )
        torch.testing.assert_close(
            loaded.network(big, ids)[mask],
            values["out.big_logits"][mask],
            atol=limits["big_logits"]["atol"],
            rtol=1e-5,
        )
    assert (
        by_loading.digest == by_import.digest != checkpoint.info(imported_folders["decoder"]).digest
    )
