"""Finetuning: what each task starts from, and what all of them have in common."""

from pathlib import Path

import pytest
import torch

from models.blip.positions import interpolate
from models.blip.tokenizer import WordPiece
from models.checkpoints.conversion import import_folder
from models.checkpoints.locate import CheckpointError
from pipeline.toy.tasks import ToyTasksConfig, write_questions, write_statements
from pipeline.train.dataloader import Batch
from pipeline.train.finetune import check_sources, start_finetuning
from pipeline.train.tasks import TASKS, Task
from shards.training.source import SourceConfig
from shards.training.source_reader import open_source
from tests.support.small_finetuning import config_of, create, learn, losses_of, pairs_of

PAIR_TASKS = ("captioner", "filter", "retrieval", "joint")


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("captioner", {"lm"}),
        ("filter", {"itc", "itm", "temperature"}),
        ("retrieval", {"itc", "itm", "temperature"}),
        ("joint", {"itc", "itm", "lm", "temperature"}),
    ],
)
def test_each_task_has_its_losses(
    pretrained: Path, pairs: Batch, task: str, expected: set[str]
) -> None:
    objective = start_finetuning(config_of(task, pretrained))
    losses = losses_of(objective, pairs)
    assert losses.keys() == {"loss", *expected}
    total = sum(losses[name] for name in expected - {"temperature"})
    torch.testing.assert_close(losses["loss"], total)


@pytest.mark.parametrize("task", TASKS)
def test_gradients_reach_all_that_is_trained(
    pretrained: Path, pairs: Batch, annotated: Batch, task: str
) -> None:
    """What no loss reaches would stop a training of several workers."""
    objective = start_finetuning(config_of(task, pretrained))
    losses_of(objective, pairs if task in PAIR_TASKS else annotated)["loss"].backward()
    named = dict(objective.network.named_parameters())
    without = {name for name, parameter in named.items() if parameter.grad is None}
    assert without == {name for name, parameter in named.items() if not parameter.requires_grad}
    if task in PAIR_TASKS:
        assert without == {name for name in named if "_m." in name}


@pytest.mark.parametrize("task", PAIR_TASKS)
def test_a_frozen_vision_tower_does_not_move(pretrained: Path, pairs: Batch, task: str) -> None:
    objective = start_finetuning(config_of(task, pretrained, {"freeze_vision": True}))
    before = {name: tensor.clone() for name, tensor in objective.network.state_dict().items()}
    learn(objective, pairs)
    moved = {
        name
        for name, tensor in objective.network.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert moved
    assert not [name for name in moved if name.startswith("vision_model.")]


@pytest.mark.parametrize("task", PAIR_TASKS)
def test_recomputing_changes_nothing(pretrained: Path, pairs: Batch, task: str) -> None:
    losses = [
        learn(start_finetuning(config_of(task, pretrained, {"recompute": count})), pairs)
        for count in (0, 2)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("task", PAIR_TASKS)
def test_another_image_size_stretches_the_positions(
    pretrained: Path, words: WordPiece, task: str, tmp_path: Path
) -> None:
    objective = start_finetuning(config_of(task, pretrained, {"image_size": 32}))
    whole = import_folder(pretrained).content.tensors
    state = objective.network.state_dict()
    for tower in ("vision_model", "vision_model_m"):
        name = f"{tower}.embeddings.position_embedding"
        if name in state:
            assert state[name].shape[1] == 17
            torch.testing.assert_close(state[name], interpolate(whole[name], 4))
    learn(objective, pairs_of(words, 32), 1)
    for path in objective.export(tmp_path).values():
        content = import_folder(path).content
        assert content.config.vision_config.image_size == 32
        assert content.preprocess.height == content.preprocess.width == 32


def test_a_start_that_cannot_become_the_task_is_refused(words: WordPiece, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a captioner holds no filter"):
        start_finetuning(config_of("filter", create(tmp_path / "captioner", "captioner", words)))
    with pytest.raises(CheckpointError, match="a filter holds no pretrain"):
        start_finetuning(config_of("joint", create(tmp_path / "filter", "filter", words)))


@pytest.mark.parametrize("task", ["vqa", "nlvr", "dialogue"])
def test_a_few_steps_learn_the_batch_and_training_goes_on_from_what_was_written(
    pretrained: Path, annotated: Batch, task: str, tmp_path: Path
) -> None:
    objective = start_finetuning(config_of(task, pretrained))
    first, *_, last = learn(objective, annotated, 16, rate=2e-3)
    assert last < first / 2
    (written,) = objective.export(tmp_path).values()
    again = start_finetuning(config_of(task, written))
    with torch.no_grad():
        expected = losses_of(objective, annotated)["loss"]
    torch.testing.assert_close(losses_of(again, annotated)["loss"].detach(), expected)


def test_only_pretraining_becomes_a_task(pretrained: Path, tmp_path: Path) -> None:
    vqa = start_finetuning(config_of("vqa", pretrained)).export(tmp_path)["vqa"]
    with pytest.raises(CheckpointError, match=r"starts from a pretrain folder.*found vqa"):
        start_finetuning(config_of("nlvr", vqa))


def test_a_source_must_be_of_the_tasks_kind(tmp_path: Path) -> None:
    few = ToyTasksConfig(samples=2, image_px=32)
    files: dict[Task, Path] = {
        "vqa": write_questions(tmp_path / "vqa", few),
        "nlvr": write_statements(tmp_path / "nlvr", few),
    }
    sources = {
        task: open_source(SourceConfig(annotations=str(path))) for task, path in files.items()
    }
    for task, source in sources.items():
        check_sources(task, [source])
    mistaken: list[tuple[Task, Task]] = [("vqa", "nlvr"), ("nlvr", "vqa"), ("captioner", "vqa")]
    for task, other in mistaken:
        with pytest.raises(ValueError, match=f"{task} learns from .* has .*Name a source"):
            check_sources(task, [sources[other]])
