"""Dual encoders say what transformers' own calls say, whatever the batch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoints.locate import CheckpointError
from models.scorers.config import DualEncoderConfig
from models.scorers.dual_encoder import DualEncoder, check
from models.scorers.scorer import TextScores
from tests.support.tiny_guests import WORDS, pictures, words
from tests.support.tiny_scorers import SCORERS

LONG = " ".join(WORDS[:20])
TEXTS = ["a dog", "A Dog in this picture .", LONG, "word3"]
SCALE, BIAS = 1.5, -0.7  # of the tiny folders, as logs of a scale and as a bias


def config(folder: Path, **settings: Any) -> DualEncoderConfig:
    return DualEncoderConfig(kind="dual_encoder", name="guest", model=str(folder), **settings)


def opened(folder: Path, **settings: Any) -> DualEncoder:
    return DualEncoder(config(folder, **settings), dtype="fp32")


def score(scorer: DualEncoder, texts: list[str] = TEXTS) -> list[list[TextScores]]:
    return scorer.score([scorer.prepare(each) for each in pictures()], [texts] * 6)


def own_logits(folder: Path, texts: list[str] = TEXTS) -> Tensor:
    """What the family's own processor and network say of all pictures and texts at once."""
    processor = hf.AutoProcessor.from_pretrained(folder, backend="pil")
    network = hf.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    padding = "longest" if "clip" in network.config.model_type[:4] else "max_length"
    most = network.config.text_config.max_position_embeddings
    inputs = processor(
        text=texts,
        images=pictures(),
        padding=padding,
        truncation=True,
        max_length=most,
        return_tensors="pt",
    )
    with torch.no_grad():
        return network(**inputs).logits_per_image


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_scores_are_transformers_own(name: str, guest_folder: Callable[[str], Path]) -> None:
    logits = own_logits(guest_folder(name))
    scale = torch.tensor(SCALE).exp()
    sigmoid = name != "clip"
    cosines = (logits - (BIAS if sigmoid else 0)) / scale
    assert cosines.std() > 0.02, "a scorer that says the same of all tests nothing"
    scorer = opened(guest_folder(name))
    values = torch.tensor([[scores.values for scores in row] for row in score(scorer)])
    assert scorer.scores == (("cosine", "prob") if sigmoid else ("cosine",))
    torch.testing.assert_close(values[..., 0], cosines, atol=1e-5, rtol=0)
    if sigmoid:
        torch.testing.assert_close(values[..., 1], logits.sigmoid(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["siglip", pytest.param("siglip2", marks=pytest.mark.nightly)])
def test_a_score_is_the_same_in_whatever_batch(
    name: str, guest_folder: Callable[[str], Path]
) -> None:
    scorer = opened(guest_folder(name))
    together = score(scorer)
    for picture, row in zip(pictures(), together, strict=True):
        for text, expected in zip(TEXTS, row, strict=True):
            alone = scorer.score([scorer.prepare(picture)], [[text]])[0][0]
            assert alone.values == pytest.approx(expected.values, abs=1e-5)


def test_pictures_have_as_many_texts_as_they_have(guest_folder: Callable[[str], Path]) -> None:
    scorer = opened(guest_folder("clip"))
    batch = [scorer.prepare(picture) for picture in pictures()[:3]]
    ragged = scorer.score(batch, [[], TEXTS[:2], TEXTS[2:3]])
    assert [len(row) for row in ragged] == [0, 2, 1]
    full = score(scorer)
    assert ragged[1][1].values == pytest.approx(full[1][1].values, abs=1e-6)
    assert ragged[2][0].values == pytest.approx(full[2][2].values, abs=1e-6)
    assert scorer.score(batch, [[], [], []]) == [[], [], []]


def test_a_text_that_is_cut_says_so(guest_folder: Callable[[str], Path]) -> None:
    told = score(opened(guest_folder("clip")))[0]  # 12 tokens, two of them special
    assert [(each.tokens, each.truncated) for each in told] == [
        (2, False),
        (6, False),
        (20, True),
        (1, False),
    ]
    shorter = score(opened(guest_folder("clip"), max_tokens=8))[0]
    assert [each.truncated for each in shorter] == [False, False, True, False]
    exact = opened(guest_folder("clip"), max_tokens=8).score(
        [opened(guest_folder("clip")).prepare(pictures()[0])], [[" ".join(WORDS[:6])]]
    )
    assert not exact[0][0].truncated
    with pytest.raises(CheckpointError, match=r"max_tokens is 13, but .* reads at most 12"):
        check(config(guest_folder("clip"), max_tokens=13))


def test_lower_case_is_asked_for(guest_folder: Callable[[str], Path]) -> None:
    folder = guest_folder("siglip")
    plain = score(opened(folder), ["A Dog", "a dog"])[0]
    assert plain[0] != plain[1]
    lowered = score(opened(folder, lowercase=True), ["A Dog", "a dog"])[0]
    assert lowered[0].values == pytest.approx(plain[1].values, abs=1e-6)
    assert lowered[1].values == pytest.approx(plain[1].values, abs=1e-6)


@pytest.mark.parametrize("name", ["git", "llava"])
def test_a_folder_that_is_no_dual_encoder(name: str, guest_folder: Callable[[str], Path]) -> None:
    with pytest.raises(CheckpointError, match=f"holds a {name}, which puts no pictures and texts"):
        check(config(guest_folder(name)))


def test_blip_is_a_kind_of_its_own(tmp_path: Path) -> None:
    hf.BlipConfig().save_pretrained(tmp_path)
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="give it as kind: blip"):
        check(config(tmp_path))


def test_weights_that_are_not_there_are_never_random(
    tmp_path: Path, guest_folder: Callable[[str], Path]
) -> None:
    folder = shutil.copytree(guest_folder("clip"), tmp_path / "clip")
    block = json.loads((folder / "config.json").read_text())
    block["text_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(block))
    check(config(folder))
    with pytest.raises(CheckpointError, match=r"lacks .* of the weights of a CLIPModel"):
        opened(folder)


def test_the_positions_of_roberta_begin_behind_its_pad(tmp_path: Path) -> None:
    network = hf.AltCLIPConfig(
        text_config={"max_position_embeddings": 40, "pad_token_id": 1, "vocab_size": 90},
        vision_config={"image_size": 32, "patch_size": 16},
    )
    network.save_pretrained(tmp_path)
    words(framed=True).save_pretrained(tmp_path)
    hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path)
    save_file({}, tmp_path / "model.safetensors")
    check(config(tmp_path, max_tokens=38))
    with pytest.raises(CheckpointError, match="reads at most 38"):
        check(config(tmp_path, max_tokens=39))
