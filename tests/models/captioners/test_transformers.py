"""Guests write what transformers' own calls write, whatever the batch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from models.captioners.captioner import Caption
from models.captioners.config import TransformersCaptionerConfig
from models.captioners.transformers import TransformersCaptioner, check
from models.checkpoints.locate import CheckpointError
from models.decoding import sampling
from tests.support.tiny_guests import CAPTIONERS, END, QUESTION, pictures

TOKENS = 12
KEYS = [f"shard/{number}" for number in range(6)]
QUICK = ("florence2", "qwen2_5_vl")  # an encoder with a decoder, and ragged pictures
FAMILIES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.nightly) for name in CAPTIONERS
]
PROMPTS = {
    "idefics3": f"<s><image> {QUESTION} :",
    "smolvlm": f"<s><image> {QUESTION} :",
    "llava": f"<s><image> {QUESTION} :",
    "florence2": "<CAPTION>",
}


def config(folder: Path, name: str, **settings: Any) -> TransformersCaptionerConfig:
    return TransformersCaptionerConfig(
        kind="transformers",
        model=str(folder),
        **{"prompt": CAPTIONERS[name][1], "max_tokens": TOKENS, **settings},
    )


def opened(folder: Path, name: str, **settings: Any) -> TransformersCaptioner:
    return TransformersCaptioner(config(folder, name, **settings), seed=3, dtype="fp32")


def write(captioner: TransformersCaptioner, count: int = 1) -> list[list[Caption]]:
    return captioner.caption([captioner.prepare(each) for each in pictures()], KEYS, count)


def own_inputs(name: str, folder: Path, images: list[Image.Image]) -> dict[str, Tensor]:
    """What the family's own processor makes of all pictures at once."""
    if name == "qwen2_5_vl":  # it wants torchvision; its rule is short
        return qwen_inputs(folder, images)
    kind = hf.Idefics3Processor if name == "smolvlm" else hf.AutoProcessor  # num2words, too
    processor = kind.from_pretrained(folder, backend="pil")
    if name == "git":
        return processor(images=images, return_tensors="pt")
    processor.tokenizer.padding_side = "left"
    text = [PROMPTS[name]] * len(images)
    return processor(
        text=text, images=[[each] for each in images], padding=True, return_tensors="pt"
    )


def qwen_inputs(folder: Path, images: list[Image.Image]) -> dict[str, Tensor]:
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    made = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")(images, return_tensors="pt")
    texts = [
        f"<s><|vision_start|>{'<|image_pad|>' * (int(grid.prod()) // 4)}<|vision_end|> {QUESTION} :"
        for grid in made["image_grid_thw"]
    ]
    words = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    kinds = (words["input_ids"] == tokenizer.image_token_id).int()
    return {**made, **words, "mm_token_type_ids": kinds}


def own_captions(
    name: str, folder: Path, **settings: Any
) -> tuple[list[str], list[list[int]], list[float]]:
    """What transformers' own call writes: texts, tokens up to the end, log-probability a token."""
    network = hf.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    inputs = {k: v for k, v in own_inputs(name, folder, pictures()).items() if k != "labels"}
    with torch.no_grad():
        out = network.generate(
            **inputs,
            max_new_tokens=TOKENS,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
    steps = len(out.scores)
    beams = getattr(out, "beam_indices", None)
    gains = network.compute_transition_scores(
        out.sequences, out.scores, beams, normalize_logits=beams is None
    )
    texts, rows, means = [], [], []
    for row, gain in zip(out.sequences[:, -steps:].tolist(), gains.tolist(), strict=True):
        length = row.index(2) if 2 in row else len(row)
        counted = length + (2 in row)
        rows.append(row[:length])
        texts.append(tokenizer.decode(row[:length], skip_special_tokens=True).strip())
        means.append(sum(gain[:counted]) / counted)
    return texts, rows, means


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_captions_are_transformers_own(
    name: str, guest_folder: Callable[[str], Path]
) -> None:
    texts, rows, means = own_captions(name, guest_folder(name), do_sample=False)
    assert len(set(texts)) >= 5, "a captioner that says the same of all tests nothing"
    written = [row[0] for row in write(opened(guest_folder(name), name, method="greedy"))]
    assert [caption.text for caption in written] == texts
    assert [caption.tokens for caption in written] == [len(row) for row in rows]
    assert [caption.truncated for caption in written] == [len(row) == TOKENS for row in rows]
    assert [caption.logprob for caption in written] == pytest.approx(means, abs=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_draw_is_the_same_in_whatever_batch(
    name: str, guest_folder: Callable[[str], Path]
) -> None:
    captioner = opened(guest_folder(name), name, top_p=0.95)
    together = write(captioner, count=3)
    assert len({caption.text for row in together for caption in row}) >= 12
    for picture, key, expected in zip(pictures(), KEYS, together, strict=True):
        alone = captioner.caption([captioner.prepare(picture)], [key], 3)[0]
        assert [caption.text for caption in alone] == [caption.text for caption in expected]
        first = captioner.caption([captioner.prepare(picture)], [key], 1)[0][0]
        assert first.text == expected[0].text


@pytest.mark.parametrize("name", ["git", pytest.param("idefics3", marks=pytest.mark.nightly)])
def test_beams_are_transformers_own(name: str, guest_folder: Callable[[str], Path]) -> None:
    texts, _, _ = own_captions(
        name, guest_folder(name), do_sample=False, num_beams=3, num_return_sequences=2
    )
    written = write(opened(guest_folder(name), name, method="beam", beams=3), count=2)
    assert [caption.text for row in written for caption in row] == texts
    assert {caption.logprob for row in written for caption in row} == {None}


def test_a_draw_is_from_the_nucleus_of_the_tempered_distribution(
    guest_folder: Callable[[str], Path],
) -> None:
    folder, picture, key = guest_folder("llava"), pictures()[3], KEYS[3]
    captioner = opened(folder, "llava", temperature=0.7, top_k=20, top_p=0.8)
    written = captioner.caption([captioner.prepare(picture)], [key], 1)[0][0]
    network = hf.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = dict(own_inputs("llava", folder, [picture]))
    streams, ids = sampling.step_streams(sampling.text_seeds(3, [key], 1), TOKENS), []
    cuts = LogitsProcessorList([TopKLogitsWarper(20), TopPLogitsWarper(0.8)])
    for step in range(TOKENS):
        with torch.no_grad():
            scores = network(**inputs).logits[:, -1] / 0.7
        left = cuts(inputs["input_ids"], scores).softmax(-1).double()
        race = sampling.exponentials(streams[:, step : step + 1], left.shape[-1])
        token = (left / race).argmax(-1, keepdim=True)
        if token.item() == 2:
            break
        ids.append(token.item())
        inputs["input_ids"] = torch.cat([inputs["input_ids"], token], -1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    assert written.text == tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.fixture
def own_minded(tmp_path: Path, guest_folder: Callable[[str], Path]) -> Path:
    """A folder with wishes of its own about decoding."""
    folder = shutil.copytree(guest_folder("llava"), tmp_path / "llava")
    path = folder / "generation_config.json"
    wishes = {"num_beams": 3, "repetition_penalty": 5.0, "suppress_tokens": list(range(20, 60))}
    path.write_text(json.dumps(json.loads(path.read_text()) | wishes))
    return folder


def test_the_folders_wishes_count_for_nothing_unless_asked_for(
    own_minded: Path, guest_folder: Callable[[str], Path]
) -> None:
    plain = write(opened(guest_folder("llava"), "llava", method="greedy"))
    assert write(opened(own_minded, "llava", method="greedy")) == plain
    texts, _, _ = own_captions("llava", own_minded)
    written = [row[0].text for row in write(opened(own_minded, "llava", generation="folder"))]
    assert written == texts
    assert written != [row[0].text for row in plain]


def test_a_folder_that_samples_is_drawn_by_key(own_minded: Path) -> None:
    path = own_minded / "generation_config.json"
    wishes = {"do_sample": True, "top_k": 5, "num_beams": 1, "temperature": 0.5}
    path.write_text(json.dumps(json.loads(path.read_text()) | wishes))
    captioner = opened(own_minded, "llava", generation="folder")
    assert write(captioner, 2) == write(captioner, 2)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_beams": 2}))
    with pytest.raises(CheckpointError, match="do_sample with num_beams"):
        check(config(own_minded, "llava", generation="folder"))


def test_a_prompt_is_continued_and_not_repeated(guest_folder: Callable[[str], Path]) -> None:
    folder = guest_folder("git")
    written = [row[0] for row in write(opened(folder, "git", prompt="a dog", method="greedy"))]
    network = hf.GitForCausalLM.from_pretrained(folder).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    images = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    for picture, caption in zip(pictures(), written, strict=True):
        pixels = images(picture, return_tensors="pt")["pixel_values"]
        start = torch.tensor([tokenizer.convert_tokens_to_ids(["<s>", "a", "dog"])])
        ids = network.generate(pixel_values=pixels, input_ids=start, max_new_tokens=TOKENS)[0, 3:]
        said = tokenizer.decode(ids, skip_special_tokens=False).split(END)[0]
        assert caption.text == said.strip()


def test_more_texts_than_the_method_has(guest_folder: Callable[[str], Path]) -> None:
    captioner = opened(guest_folder("llava"), "llava", method="greedy")
    with pytest.raises(ValueError, match="1 to 1 texts a picture, not 2"):
        write(captioner, 2)
    assert captioner.caption([], [], 1) == []


def test_large_pictures_are_scaled_down_first(guest_folder: Callable[[str], Path]) -> None:
    captioner = opened(guest_folder("qwen2_5_vl"), "qwen2_5_vl", max_pixels=1024)
    small = captioner.prepare(pictures()[0].resize((32, 32), Image.Resampling.BICUBIC))
    large = captioner.prepare(pictures()[0])  # 64 x 64
    assert large.content["image_grid_thw"].tolist() == small.content["image_grid_thw"].tolist()
    assert large.held_bytes == sum(tensor.nbytes for tensor in large.content.values())


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_folder_that_is_no_captioner(name: str, guest_folder: Callable[[str], Path]) -> None:
    with pytest.raises(CheckpointError, match=f"holds a {name}, which writes no texts"):
        check(config(guest_folder(name), "git"))


def test_weights_that_are_not_there_are_never_random(
    tmp_path: Path, guest_folder: Callable[[str], Path]
) -> None:
    folder = shutil.copytree(guest_folder("git"), tmp_path / "git")
    block = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(block | {"num_hidden_layers": 3}))
    check(config(folder, "git"))  # weights are not looked at
    with pytest.raises(CheckpointError, match=r"lacks .* of the weights of a GitForCausalLM"):
        opened(folder, "git")


def test_the_digest_covers_the_content_alone(
    tmp_path: Path, guest_folder: Callable[[str], Path]
) -> None:
    copy = shutil.copytree(guest_folder("git"), tmp_path / "copy")
    (copy / "README.md").write_text("words")
    before = check(config(guest_folder("git"), "git"))
    assert check(config(copy, "git")).digest == before.digest
    assert opened(copy, "git").digest == before.digest
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert check(config(copy, "git")).digest != before.digest
