"""What all objectives do: become trainable, take a batch to the network, and write it once."""

from pathlib import Path

import pytest
import torch

from models.blip.networks import MatchNetwork
from models.blip.text import TextEncoder
from models.blip.tokenizer import WordPiece
from models.blip.vision import VisionEncoder
from models.checkpoints.conversion import import_folder
from models.training.finetuning import RetrievalNetwork
from models.training.workers import ALONE
from pipeline.train.config import TowerConfig
from pipeline.train.dataloader import Batch
from pipeline.train.objective import Objective, StepContext, trainable
from tests.support.small_finetuning import SIDE, create


@pytest.fixture
def objective(words: WordPiece, tmp_path: Path) -> Objective:
    content = import_folder(create(tmp_path / "start", "filter", words)).content
    return Objective(trainable(MatchNetwork, content, TowerConfig()), content)


def test_towers_are_trained_as_their_config_says(pretrained: Path) -> None:
    content = import_folder(pretrained).content
    towers = TowerConfig(dropout=0.3, drop_path=0.2, recompute=1, freeze_vision=True)
    network = trainable(RetrievalNetwork, content, towers)
    kinds = [module for module in network.modules() if isinstance(module, torch.nn.Dropout)]
    assert kinds
    assert {module.p for module in kinds} <= {0.0, 0.3}
    encoders = [m for m in network.modules() if isinstance(m, VisionEncoder | TextEncoder)]
    assert {encoder.recomputed for encoder in encoders} == {1}
    assert {e.drop_path for e in encoders if isinstance(e, VisionEncoder)} == {0.2}
    assert not any(p.requires_grad for p in network.vision_model.parameters())
    assert all(p.requires_grad for p in network.text_encoder.parameters())
    assert content.config.text_config.hidden_dropout_prob == 0.0  # the checkpoint's own stays


def test_copies_start_only_where_the_checkpoint_lacks_them(
    pretrained: Path, words: WordPiece, tmp_path: Path
) -> None:
    kept = trainable(RetrievalNetwork, import_folder(pretrained).content, TowerConfig())
    assert not torch.equal(kept.vision_proj_m.weight, kept.vision_proj.weight)
    scorer = import_folder(create(tmp_path / "filter", "filter", words)).content
    started = trainable(RetrievalNetwork, scorer, TowerConfig())
    assert torch.equal(started.vision_proj_m.weight, started.vision_proj.weight)
    assert not any(p.requires_grad for p in started.vision_proj_m.parameters())


def test_a_batch_arrives_normalised_and_whole(objective: Objective, pairs: Batch) -> None:
    moved = objective.pairs(pairs, ALONE)
    assert torch.equal(moved.ids, pairs.ids)
    assert torch.equal(moved.mask, pairs.mask)
    assert moved.pixels.shape == (len(pairs), 3, SIDE, SIDE)
    mean = torch.tensor(objective.about.preprocess.mean)[:, None, None]
    std = torch.tensor(objective.about.preprocess.std)[:, None, None]
    expected = (pairs.pixels / 255 - mean) / std
    torch.testing.assert_close(moved.pixels, expected, atol=1e-5, rtol=1e-5)


def test_what_is_written_stays(objective: Objective, tmp_path: Path) -> None:
    path = objective.write(tmp_path / "model", objective.network)
    first = (path / "model.safetensors").read_bytes()
    with torch.no_grad():
        for parameter in objective.network.parameters():
            parameter.add_(1)
    assert objective.write(path, objective.network) == path
    assert (path / "model.safetensors").read_bytes() == first


def test_copies_follow_in_the_first_part_of_a_step_alone() -> None:
    moments = [StepContext(0, torch.Generator(), ALONE, part) for part in range(3)]
    assert [moment.follow(0.995) for moment in moments] == [0.995, 1.0, 1.0]
