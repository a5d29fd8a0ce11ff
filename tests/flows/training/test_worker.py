"""A worker's part of a training: small to send, and written down when it is done."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flows.training.recipe import PretrainRecipe
from flows.training.run import checkpoint_of, prepare
from flows.training.worker import TrainingJob, work
from models.checkpoints import checkpoint
from models.training.workers import ALONE

CPU = torch.device("cpu")


@pytest.fixture
def job(recipe: Callable[..., PretrainRecipe]) -> TrainingJob:
    return prepare(recipe())


def test_a_job_is_small_and_the_same_elsewhere(job: TrainingJob) -> None:
    sent = pickle.dumps(job)
    assert len(sent) < 20_000
    assert pickle.loads(sent) == job


def test_the_first_worker_writes_result_checkpoint_and_card(job: TrainingJob) -> None:
    work(job, ALONE, CPU)
    result = json.loads((job.folder / "result.json").read_text())
    assert (result["steps"], result["workers"], result["device"]) == (2, 1, "cpu")
    (source,) = result["sources"]
    assert source == {"name": job.sources[0].name, "rows": 24, "left_out": {}, "damaged": {}}
    model = checkpoint_of(job.folder, "pretrain")
    assert checkpoint.info(model).digest == result["checkpoints"]["pretrain"]["digest"]
    card = (model / "README.md").read_text()
    last = json.loads((job.folder / "metrics.jsonl").read_text().splitlines()[-1])
    for name in ("loss", "itc", "itm", "lm"):
        assert f"{last[name]:.3f}" in card or f"{last[name]:.4g}" in card, name


def test_a_start_that_was_moved_is_taken_from_the_job(job: TrainingJob, tmp_path: Path) -> None:
    """The recipe may name no start, or one on another machine."""
    moved = job.start.rename(tmp_path / "moved")
    work(replace(job, start=moved), ALONE, CPU)
    assert (job.folder / "result.json").is_file()
