"""Two tasks in one training: how often each comes, and that a break changes nothing."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from torch import Tensor

from models.training.workers import ALONE
from pipeline.toy.tasks import ToyTasksConfig, write_questions
from pipeline.train import finetune, pretrain
from pipeline.train.dataloader import Batch, BatchLoader
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.loop import TrainingContext, train
from pipeline.train.mixture import TaskMixture, TaskSource
from pipeline.train.objective import Objective, StepContext
from shards.training.source import SourceConfig
from shards.training.source_reader import open_source
from tests.support.small_training import (
    BATCH,
    CPU,
    config_of,
    last_state,
    lines,
    sources_of,
    write_world,
)

STEPS, SHARE = 12, 0.4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs, questions, and the random network that trainings start from."""
    folder = tmp_path_factory.mktemp("tasks")
    write_world(folder / "world")
    write_questions(folder / "vqa", ToyTasksConfig(samples=9, image_px=32))
    first = config_of(folder / "world")
    pretrain.write_start(folder / "start", first, sources_of(first))
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> FinetuneConfig:
    shared = config_of(folder / "world", STEPS).model_dump(exclude={"model", "loss"})
    return FinetuneConfig.model_validate(
        shared
        | {
            "task": "joint",
            "model": {"start": str(folder / "start")},
            "loss": {"queue": 20, "momentum": 0.9},
            "questions": {
                "sources": [{"annotations": str(folder / "vqa" / "vqa.json")}],
                "share": SHARE,
                "max_tokens": 16,
            },
        }
    )


def run(config: FinetuneConfig, folder: Path, objective: Objective | None = None) -> None:
    folder.mkdir(exist_ok=True)
    assert config.questions
    questions = [open_source(source) for source in config.questions.sources]
    train(
        config,
        "fp32",
        sources_of(config),
        objective or finetune.start_finetuning(config),
        TrainingContext(folder, CPU, ALONE),
        finetune.questions_beside(config, questions),
    )


@pytest.fixture(scope="module")
def whole(config: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken training."""
    folder = tmp_path_factory.mktemp("whole") / "training"
    run(config, folder)
    return folder


def test_each_step_learns_one_task_and_both_come(whole: Path) -> None:
    kinds = [("answers" in line, "itc" in line) for line in lines(whole)]
    assert len(kinds) == STEPS
    assert set(kinds) == {(True, False), (False, True)}


def test_a_break_changes_nothing(config: FinetuneConfig, whole: Path, tmp_path: Path) -> None:
    class BrokenError(Exception):
        pass

    broken = finetune.start_finetuning(config)
    forward, calls = broken.forward, iter(range(7))

    def fail_late(batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        if next(calls, None) is None:
            raise BrokenError
        return forward(batch, moment)

    broken.forward = fail_late  # type: ignore[method-assign]  # a fault, as a GPU may have one
    with pytest.raises(BrokenError):
        run(config, tmp_path / "training", broken)
    assert len(lines(tmp_path / "training")) == 7
    run(config, tmp_path / "training")
    assert lines(tmp_path / "training") == lines(whole)
    assert last_state(tmp_path / "training") == last_state(whole)


def test_positions_in_both_tasks_are_kept(whole: Path) -> None:
    positions = json.loads(last_state(whole)["progress.json"])["positions"]
    asked = sum("answers" in line for line in lines(whole))
    assert len(positions) == 12  # six lanes of each
    taken = [sum(positions[str(lane)] for lane in lanes) for lanes in (range(6), range(6, 12))]
    assert taken[1] == asked * BATCH
    assert taken[0] >= (STEPS - asked) * BATCH  # broken pictures were taken too


@contextmanager
def opened(folder: Path, seed: int) -> Iterator[TaskMixture]:
    source = open_source(SourceConfig(annotations=str(folder / "vqa" / "vqa.json")))
    tasks = [TaskSource([source], 16, share=1 - SHARE), TaskSource([source], 16, share=SHARE)]
    zero = dict.fromkeys(range(12), 0)
    # 600 batches of real pictures would say no more about which task they come from
    loader = cast(BatchLoader, _Endless())
    with closing(TaskMixture(tasks, lambda *_: loader, 6, seed, zero)) as mixture:
        yield mixture


class _Endless:
    """Gives batches of nothing; which task they come from shows in the positions."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield type("Empty", (), {"positions": {0: 1}})

    def close(self) -> None:
        pass


def test_tasks_come_as_often_as_their_share_says(folder: Path) -> None:
    def draws(seed: int) -> list[int]:
        with opened(folder, seed) as mixture:
            return [next(iter(mixture.take(step, 1)[1])) // 6 for step in range(600)]

    assert sum(draws(1)) / 600 == pytest.approx(SHARE, abs=0.06)
    assert draws(1) == draws(1) != draws(2)
