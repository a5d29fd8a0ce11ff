"""`capfilt pretrain` and `capfilt finetune`: train, or take a training up again."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Address, Engine, RecipePath, Set
from pipeline.train.tasks import Task

if TYPE_CHECKING:
    from flows.training.recipe import TrainingRecipe

PRETRAIN_EXAMPLES = """
Examples:

  capfilt pretrain recipe.yaml

  capfilt pretrain recipe.yaml --engine local --set step.epochs=2 \\
      --output runs/short
"""
FINETUNE_EXAMPLES = """
Examples:

  capfilt finetune captioner recipe.yaml --start runs/pretrain/model \\
      --output runs/captioner

  capfilt finetune filter recipe.yaml --start runs/pretrain/model \\
      --output runs/filter
"""

# What the options of a training go over, in their order.
_KEYS = ("output", "model.start", "launch.kind", "launch.workers", "launch.address")

Output = Annotated[str | None, typer.Option(help="training folder, new or to be resumed")]
StartOption = Annotated[str | None, typer.Option(help="checkpoint folder to start from")]
Workers = Annotated[int | None, typer.Option(min=1, help="of Ray")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def pretrain(
    recipe: RecipePath = None,
    output: Output = None,
    start: StartOption = None,
    engine: Engine = None,
    workers: Workers = None,
    address: Address = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Pre-train on clean and human-annotated pairs; the same command takes a training up again."""
    from flows.recipe import read_recipe
    from flows.training.recipe import PretrainRecipe

    flags = dict(zip(_KEYS, (output, start, engine, workers, address), strict=True))
    _train(read_recipe(PretrainRecipe, recipe, flags, set_ or ()), as_json)


def finetune(
    task: Annotated[Task, typer.Argument(help="what to become")],
    recipe: RecipePath = None,
    output: Output = None,
    start: StartOption = None,
    engine: Engine = None,
    workers: Workers = None,
    address: Address = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Finetune a pre-trained checkpoint on what people annotated."""
    from flows.recipe import read_recipe
    from flows.training.recipe import FinetuneRecipe

    flags = dict(zip(_KEYS, (output, start, engine, workers, address), strict=True))
    flags["task"] = task
    _train(read_recipe(FinetuneRecipe, recipe, flags, set_ or ()), as_json)


def _train(recipe: "TrainingRecipe", as_json: bool) -> None:
    from flows.cli.display.progress import watch_training
    from flows.training import run as train

    job = train.prepare(recipe)
    with watch_training(job.steps) as display:
        result = train.run(job, display)
    if as_json:
        print(json.dumps(result | {"output": str(job.folder)}))
        return
    steps, samples, epochs = (result[name] for name in ("steps", "samples", "epochs"))
    print(f"{steps:,} steps, {samples:,} samples, {epochs:.2f} epochs, {result['seconds']:,.0f} s")
    if result["left_out"]:
        print(f"left out: {result['left_out']}")
    for alarm in result["alarms"]:
        print(f"alarm: {alarm}")
    for role, checkpoint in result["checkpoints"].items():
        print(f"{role}: {job.folder / checkpoint['folder']}")
