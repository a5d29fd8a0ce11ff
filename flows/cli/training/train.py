"""`capfilt pretrain` and `capfilt finetune`: train, or take a training up again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import Address, Direct, Engine, RecipePath, Set, say_loading
from pipeline.printable import number_of
from pipeline.train.tasks import Task
from shards.files.home import expand_home

if TYPE_CHECKING:
    from flows.following.reporter import Reporter
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
    direct: Direct = False,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Pre-train on clean and human-annotated pairs; the same command takes a training up again."""
    flags = dict(zip(_KEYS, (output, start, engine, workers, address), strict=True))

    from flows.following.reporter import reporting
    from flows.recipe import read_recipe
    from flows.stages.first_checks import check_training
    from flows.training.recipe import PretrainRecipe

    loaded = read_recipe(PretrainRecipe, recipe, flags, set_ or ())
    check_training(loaded)
    say_loading()
    with reporting("pretrain", direct) as report:
        report.begin(_parameters(loaded, recipe, set_ or ()))
        _train(loaded, report, as_json)


def finetune(
    task: Annotated[Task, typer.Argument(help="what to become")],
    recipe: RecipePath = None,
    output: Output = None,
    start: StartOption = None,
    engine: Engine = None,
    workers: Workers = None,
    address: Address = None,
    direct: Direct = False,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Finetune a pre-trained checkpoint on what people annotated."""
    flags = dict(zip(_KEYS, (output, start, engine, workers, address), strict=True))
    flags["task"] = task

    from flows.following.reporter import reporting
    from flows.recipe import read_recipe
    from flows.stages.first_checks import check_training
    from flows.training.recipe import FinetuneRecipe

    loaded = read_recipe(FinetuneRecipe, recipe, flags, set_ or ())
    check_training(loaded)
    say_loading()
    with reporting("finetune", direct) as report:
        report.begin(_parameters(loaded, recipe, set_ or ()) | {"task": task})
        _train(loaded, report, as_json)


def _parameters(
    recipe: "TrainingRecipe", path: Path | None, settings: Sequence[str]
) -> dict[str, Any]:
    """Say what is trained as the form of the flow does."""
    from flows.following.parameters import place
    from flows.recipe import parse_settings

    workers, start = recipe.launch.workers, recipe.model.start or ""
    return {
        "output": place(recipe.output),
        "recipe": place(str(path)) if path else "",
        "start": place(start) if Path(expand_home(start)).exists() else start,
        "engine": recipe.launch.kind,
        "workers": None if workers == "auto" else workers,
        "settings": dict(parse_settings(settings)),
    }


def _train(recipe: "TrainingRecipe", report: "Reporter", as_json: bool) -> None:
    from flows.cli.display.progress import watch_training
    from flows.stages.summary import of_training
    from flows.training import run as train

    with report.stage("prepare"):
        job = train.prepare(recipe)
    with report.stage("train") as stage, watch_training(job.steps, report.progress) as display:
        result = train.run(job, display)
        stage.result = of_training(result, job.folder)
    if as_json:
        print(json.dumps(result | {"output": str(job.folder)}))
        return
    steps, samples, epochs = (result[name] for name in ("steps", "samples", "epochs"))
    done = f"{number_of(steps, 'step')}, {number_of(samples, 'sample')}, {epochs:.2f} epochs"
    print(f"{done}, {result['seconds']:,.0f} s")
    if result["left_out"]:
        print(f"left out: {result['left_out']}")
    for alarm in result["alarms"]:
        print(f"alarm: {alarm}")
    for role, checkpoint in result["checkpoints"].items():
        print(f"{role}: {job.folder / checkpoint['folder']}")
