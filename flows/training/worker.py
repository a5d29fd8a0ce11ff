"""What each worker of a training does, on whatever machine a launcher has placed it."""

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flows.training.recipe import PretrainRecipe, TrainingRecipe
from models.blip.config import Dtype
from models.checkpoints import checkpoint
from models.training.workers import Workers
from pipeline.publish.cards import ModelFacts, facts_of, write_model_card
from pipeline.train import finetune, pretrain
from pipeline.train.loop import TrainingContext, train
from pipeline.train.mixture import TaskSource
from pipeline.train.objective import Objective
from shards.store import Store
from shards.training.source import Source

_LOSSES = ("loss", "itc", "itm", "lm", "answers", "statements", "accuracy")  # that a card tells


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A prepared training; small, and understood on any worker."""

    recipe: TrainingRecipe
    folder: Path
    dtype: Dtype
    sources: tuple[Source, ...]
    start: Path
    steps: int
    questions: tuple[Source, ...] = ()


def work(job: TrainingJob, workers: Workers, device: torch.device) -> None:
    """Do one worker's part; the first one writes checkpoints and result."""
    began = time.monotonic()
    objective, questions = _objective(job)
    context = TrainingContext(job.folder, device, workers)
    ended = train(job.recipe, job.dtype, job.sources, objective, context, questions)
    if workers.rank:
        return
    written = objective.export(job.folder)
    result = dataclasses.asdict(ended) | {
        "checkpoints": {
            role: {"folder": path.name, "digest": checkpoint.info(path).digest}
            for role, path in written.items()
        },
        "sources": [
            {"name": s.name, "rows": s.rows, "left_out": s.left_out, "damaged": s.damaged}
            for s in (*job.sources, *job.questions)
        ],
        "workers": workers.size,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "seconds": round(time.monotonic() - began, 1),
    }
    for path in written.values():
        write_model_card(path, _facts(job, path, result))
    Store(str(job.folder)).put("result.json", json.dumps(result, indent=2).encode())


def _objective(job: TrainingJob) -> tuple[Objective, TaskSource | None]:
    """Start from the checkpoint; return, too, the questions that join a task's own batches."""
    recipe = job.recipe
    if isinstance(recipe, PretrainRecipe):
        return pretrain.start_pretraining(job.start, recipe), None
    model = recipe.model.model_copy(update={"start": str(job.start)})
    objective = finetune.start_finetuning(recipe.model_copy(update={"model": model}))
    return objective, finetune.questions_beside(recipe, job.questions)


def last_numbers(folder: Path) -> dict[str, Any]:
    """Return the last numbers that a training wrote down."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return json.loads(lines[-1]) if lines else {}


def _facts(job: TrainingJob, path: Path, result: Mapping[str, Any]) -> ModelFacts:
    """Gather what a trained checkpoint's card says of its training."""
    recipe = job.recipe
    task = "pre-training" if isinstance(recipe, PretrainRecipe) else f"finetuning: {recipe.task}"
    training = {"training": task, **{name: result[name] for name in ("steps", "samples")}}
    training |= {"seed": recipe.seed, "highest rate": recipe.rate.highest, "dtype": job.dtype}
    last = last_numbers(job.folder)
    losses = {name: last[name] for name in _LOSSES if name in last}
    return facts_of(
        path,
        name=f"{job.folder.name}, {path.name}",
        start=recipe.model.start,
        sources=result["sources"],
        training=training,
        losses=losses,
    )
