"""A captioner's captions as negatives of its filter."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.blip import tokenizer
from models.blip.config import blip_config
from models.checkpoints import checkpoint
from models.checkpoints.conversion import import_folder
from models.checkpoints.locate import CheckpointError
from models.training.contrast import Pairs
from models.training.finetuning import NegativeCaptions, RetrievalNetwork, RetrievalSettings
from models.training.momentum import FeatureQueue
from pipeline.toy.world import corpus
from pipeline.train.config import TowerConfig
from pipeline.train.finetune_config import CaptionNegativesConfig
from pipeline.train.objective import trainable
from pipeline.train.objectives.caption_negatives import CaptionNegatives, is_unlike

CPU = torch.device("cpu")
WORDS = tokenizer.train(corpus(), 200)


def create(folder: Path, role: Any, side: int = 32) -> Path:
    config = blip_config("tiny", **WORDS.config_fields, image_size=side)
    checkpoint.create(folder / role, role, config, WORDS, seed=3)
    return folder / role


def pairs(rows: int = 4) -> Pairs:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (rows, 6), generator=draw)
    ids[:, 0], ids[:, -1] = WORDS.cls_id, WORDS.sep_id
    pixels = torch.randn(rows, 3, 32, 32, generator=draw)
    return Pairs(pixels, ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(rows))


@pytest.mark.parametrize(
    ("text", "overlap", "unlike"),
    [
        ("a red ring", 0.5, False),
        ("a blue star", 0.5, True),
        ("a blue star", 0.1, False),
        ("a red ring", 0.0, False),
        ("", 0.5, True),
    ],
)
def test_a_caption_is_unlike_that_shares_few_words_with_every_reference(
    text: str, overlap: float, unlike: bool
) -> None:
    assert is_unlike(text, ["A red RING!", "a ring of red"], overlap) == unlike


def test_a_wrong_caption_is_a_third_negative_and_a_right_one_goes_to_others(
    tmp_path: Path,
) -> None:
    """The mean over five kinds of pairs, computed one by one."""
    content = import_folder(create(tmp_path, "filter")).content
    network = trainable(RetrievalNetwork, content, TowerConfig(dropout=0)).eval()
    assert isinstance(network, RetrievalNetwork)
    batch, width = pairs(), content.config.image_text_hidden_size
    texts = pairs().ids.flip(0)
    written = NegativeCaptions(
        texts, torch.ones_like(texts, dtype=torch.bool), torch.tensor([True] * 4)
    )
    drawn = (torch.tensor([1, 0, 3, 2]), torch.tensor([2, 3, 0, 1]))
    settings = RetrievalSettings(WORDS.enc_id)
    losses = network(
        batch, FeatureQueue(width, 8, ids=True), settings, torch.Generator(),
        fixed_negatives=drawn, captions=written,
    )  # fmt: skip
    states = network.vision_model(batch.pixels)
    total = 0.0
    for image in range(4):
        for ids, picture, label in (
            (batch.ids[image], image, 1),
            (batch.ids[image], int(drawn[0][image]), 0),
            (batch.ids[drawn[1][image]], image, 0),
            (texts[image], image, 0),
        ):
            row = torch.cat([torch.tensor([WORDS.enc_id]), ids[1:]])[None]
            mask = torch.ones_like(row, dtype=torch.bool)
            logits = network.match_logits(row, mask, states[picture, None], None)
            total -= logits.log_softmax(-1)[0, label].item()
    assert losses.itm.item() == pytest.approx(total / 16, abs=1e-5)


def test_captions_of_the_same_image_are_never_taken_for_wrong(tmp_path: Path) -> None:
    content = import_folder(create(tmp_path, "filter")).content
    network = trainable(RetrievalNetwork, content, TowerConfig(dropout=0))
    batch, width = pairs(), content.config.image_text_hidden_size
    alike = Pairs(batch.pixels, batch.ids, batch.mask, torch.zeros(4, dtype=torch.long))
    right = NegativeCaptions(batch.ids, batch.mask, torch.tensor([False] * 4))
    none = network(
        alike, FeatureQueue(width, 8, ids=True), RetrievalSettings(WORDS.enc_id),
        torch.Generator().manual_seed(1), captions=right,
    )  # fmt: skip
    without = network(
        alike, FeatureQueue(width, 8, ids=True), RetrievalSettings(WORDS.enc_id),
        torch.Generator().manual_seed(1),
    )  # fmt: skip
    assert none.itm.item() == pytest.approx(without.itm.item(), abs=1e-5)


def test_a_captioner_of_other_pictures_is_refused(tmp_path: Path) -> None:
    content = import_folder(create(tmp_path, "filter")).content
    config = CaptionNegativesConfig(captioner=str(create(tmp_path, "captioner", side=64)))
    with pytest.raises(CheckpointError, match="same image_size"):
        CaptionNegatives(config, content, 0, CPU)
