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
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint, conversion
from models.checkpoints.conversion import Imported, import_original
from models.checkpoints.folder import write
from models.checkpoints.layout import read_stated
from models.checkpoints.role_networks import ties
from models.checkpoints.weights import CheckpointError
from models.decoding.generate import Decoding
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from models.roles.vqa import VqaModel
from models.training.momentum import FeatureQueue

NAMES: dict[str, Role] = {
    "decoder": "captioner",
    "itm": "filter",
    "nlvr": "nlvr",
    "pretrain": "pretrain",
    "retrieval": "filter",
    "vqa": "vqa",
}


@pytest.fixture
def damaged(parity: Path, tmp_path: Path) -> Callable[..., Path]:
    """Change the tensors of an original file, by a value or a function; None takes one away."""

    def change(name: str, **changes: Any) -> Path:
        path = tmp_path / "model.pth"
        tensors = torch.load(parity / f"{name}.pth", weights_only=True)["model"]
        for key, value in changes.items():
            key = key.replace("__", ".")
            tensors[key] = value(tensors[key]) if callable(value) else value
        torch.save({"model": {k: v for k, v in tensors.items() if v is not None}}, path)
        return path

    return change


def texts_of(words: WordPiece, rows: Tensor, prompt: int) -> list[str]:
    """Read rows of ids: a prompt of so many ids, text, [SEP], pads."""
    texts = []
    for row in rows[:, prompt:].tolist():
        texts.append(row[: row.index(words.sep_id)] if words.sep_id in row else row)
    return words.decode(texts)


def captions_of(captioner: BlipCaptioner, images: Tensor) -> list[str]:
    keys = [str(number) for number in range(len(images))]
    return [texts[0].text for texts in captioner.caption(images, keys, 1)]


def config_in(parity: Path, name: str) -> dict[str, Any]:
    """What the reference says of its sizes and tokenizer."""
    return json.loads((parity / f"{name}.json").read_text())["config"]


@pytest.mark.parametrize("name", NAMES)
def test_every_original_becomes_a_folder(
    imported_folders: dict[str, Path],
    imported: Callable[[str], Imported],
    parity: Path,
    name: str,
    as_original: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> None:
    found = checkpoint.info(imported_folders[name])
    assert found.role == NAMES[name]
    assert (found.itm_first_token, found.length_rule) == ("enc", "total")
    sizes = config_in(parity, name)
    assert found.vision_heads == sizes["vision"]["num_heads"]
    assert found.text_heads == sizes["text"]["num_attention_heads"]
    assert found.image_size == sizes["vision"]["img_size"]
    table = torch.load(parity / f"{name}.pth", weights_only=True)["model"]
    left_out = imported(name).left_out
    assert bool(left_out) == (name == "retrieval")
    loaded = checkpoint.load(imported_folders[name], found.role, dtype="fp32", device="cpu")
    state = loaded.network.state_dict() | loaded.training
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
    tower = loaded.network.vision_model_m
    assert torch.equal(tower.post_layernorm.weight, table["visual_encoder_m.norm.weight"])
    decoder, encoder = loaded.network.text_decoder.bert, loaded.network.text_encoder
    assert decoder.embeddings is encoder.embeddings


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
    network = checkpoint.load(tmp_path / "out", "features", dtype="fp32", device="cpu").network
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


def test_what_is_missing_extra_or_bent_is_listed(
    damaged: Callable[..., Path], parity: Path, vocabulary: WordPiece
) -> None:
    sizes = config_in(parity, "itm")
    text, vision = sizes["text"]["hidden_size"], sizes["vision"]["embed_dim"]
    path = damaged(
        "itm",
        itm_head__bias=None,
        itm_head__weight=torch.ones(3, text),
        text_encoder__pooler=torch.ones(1),
        visual_encoder__blocks__0__norm1__bias=torch.ones(vision, dtype=torch.int32),
    )
    with pytest.raises(CheckpointError) as caught:
        import_original(path, vocabulary, read_stated(parity / "itm.json"))
    for line in (
        f"the tensors in {path} do not fit its settings (4 problems)",
        "missing itm_head.bias",
        f"itm_head.weight has shape (3, {text}); expected (2, {text})",
        "unexpected text_encoder.pooler",
        "layers.0.layer_norm1.bias holds torch.int32; expected floating point",
    ):
        assert line in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "itm",
            {"vision_proj__bias": lambda bias: torch.full_like(bias, torch.nan)},
            "NaN .* 1 tensors, such as",
        ),
        ("itm", {"visual_encoder__cls_token": None}, "missing vision_model.*class_embedding"),
        ("itm", {"visual_encoder__blocks__99999__norm1__bias": torch.ones(1)}, "num_hidden_layers"),
        ("pretrain", {"queue_ptr": lambda _: torch.tensor([999])}, "queue_ptr .999. do not fit"),
        ("pretrain", {"text_queue": lambda queue: queue[:, :7]}, r"text_queue .\d+, 7. and"),
        ("pretrain", {"text_queue": None}, "lacks .'text_queue'."),
        (
            "pretrain",
            {"text_decoder__bert__embeddings__LayerNorm__bias": lambda bias: bias + 9},
            "differs from text_encoder.embeddings.LayerNorm.bias, to which it is tied",
        ),
    ],
)
def test_a_damaged_original_is_refused(
    damaged: Callable[..., Path],
    parity: Path,
    vocabulary: WordPiece,
    name: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    path = damaged(name, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        import_original(path, vocabulary, read_stated(parity / f"{name}.json"))
    assert str(path) in str(caught.value)


def test_heads_that_do_not_divide_the_width_are_refused(
    parity: Path, vocabulary: WordPiece
) -> None:
    stated, width = (
        read_stated(parity / "itm.json"),
        config_in(parity, "itm")["vision"]["embed_dim"],
    )
    heads = next(number for number in range(2, width) if width % number)
    stated["vision"]["num_attention_heads"] = heads
    message = f"{width} is not a multiple of num_attention_heads {heads}"
    with pytest.raises(CheckpointError, match=message):
        import_original(parity / "itm.pth", vocabulary, stated)


def test_the_wrong_vocabulary_is_refused(parity: Path, tmp_path: Path) -> None:
    words = (parity / "vocab.txt").read_text().splitlines()
    short = tmp_path / "short.txt"
    short.write_text("\n".join(words[:-1]))
    stated = read_stated(parity / "itm.json")
    size = config_in(parity, "itm")["text"]["vocab_size"]
    message = f"has {size} words.*the tokenizer has {size - 1}"
    with pytest.raises(CheckpointError, match=message):
        import_original(parity / "itm.pth", conversion.vocabulary(short), stated)
    short.write_text("\n".join([*words[:-1], words[0]]))
    with pytest.raises(CheckpointError, match="names a word twice"):
        conversion.vocabulary(short)
    short.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"short\.txt"):
        conversion.vocabulary(short)


def test_a_tokenizer_folder_serves_as_well(parity: Path, vocabulary: WordPiece) -> None:
    found = conversion.vocabulary(parity / "hf/captioning")
    told = config_in(parity, "decoder")["tokenizer"]
    sizes = (told["vocab_size_with_specials"], told["bos_id"], told["enc_id"])
    assert (found.size, found.dec_id, found.enc_id) == sizes
    text = "two birds flying over the sea"
    assert found.encode([text]) == vocabulary.encode([text])


def test_without_a_network_the_vocabulary_must_be_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(conversion, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match=r"bert-base-uncased.*--vocab.*--tokenizer"):
        conversion.vocabulary(None)


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
        states = loaded.network.vision_model(big)
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


@pytest.mark.parametrize("size", [0, -16, 8, 70, 10**9])
def test_an_image_size_that_cannot_be_is_refused(
    imported_folders: dict[str, Path], size: int
) -> None:
    with pytest.raises(CheckpointError, match=f"image size of {size} was asked for"):
        checkpoint.read(imported_folders["decoder"], image_size=size)
