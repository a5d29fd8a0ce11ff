"""`finetune`: make a pre-trained network a captioner, a filter, or what else it is to become."""

from typing import TYPE_CHECKING, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import PositiveInt

from flows.deployable.flow_run import FlowRun, dated, name_run
from flows.deployable.training import train
from pipeline.train.tasks import Task

if TYPE_CHECKING:
    from flows.training.worker import TrainingJob


@flow(name="finetune", flow_run_name=name_run, persist_result=False)
def finetune(
    task: Task,
    output: str,
    recipe: str = "",
    start: str = "",
    engine: Literal["auto", "ray", "local"] = "auto",
    workers: PositiveInt | None = None,
    settings: dict[str, Any] | None = None,
) -> State[Any] | None:
    """Finetune on what people annotated; one that was cut off is taken up by the same form.

    Args:
        task: What to become.
        output: The training folder, new or to be taken up: a whole path that all workers reach.
        recipe: Path of a recipe (YAML) on the worker; what is said here goes over it.
        start: Pre-trained checkpoint to start from; empty is as in the recipe.
        engine: Where it runs; auto is Ray, where it is installed.
        workers: Of Ray; none is one for each GPU.
        settings: Every other key of the recipe, as {"step.epochs": 2}.
    """
    output = dated(output)
    form = {
        "task": task,
        "output": output,
        "model.start": start or None,
        "launch.kind": None if engine == "auto" else engine,
        "launch.workers": workers,
    }
    with FlowRun("finetune") as run:
        job = run.stage("prepare", _prepare, recipe, form, settings or {})
        run.end(run.stage("train", train, job, run))
    return run.state


def _prepare(recipe: str, form: dict[str, Any], settings: dict[str, Any]) -> "TrainingJob":
    from flows.deployable.parameters import recipe_of
    from flows.training import run
    from flows.training.recipe import FinetuneRecipe

    return run.prepare(recipe_of(FinetuneRecipe, recipe, form, settings))
