"""`pretrain`: train a network on clean and on human-annotated pairs (ITC, ITM and LM jointly)."""

from typing import TYPE_CHECKING, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import PositiveInt

from flows.deployable.flow_run import FlowRun, dated, name_run
from flows.deployable.training import sources_of, train

if TYPE_CHECKING:
    from flows.training.worker import TrainingJob


@flow(name="pretrain", flow_run_name=name_run, persist_result=False)
def pretrain(
    output: str,
    runs: list[str] | None = None,
    recipe: str = "",
    start: str = "",
    engine: Literal["auto", "ray", "local"] = "auto",
    workers: PositiveInt | None = None,
    settings: dict[str, Any] | None = None,
) -> State[Any] | None:
    """Pre-train on what runs have kept; a training that was cut off is taken up by the same form.

    Args:
        output: The training folder, new or to be taken up: a whole path that all workers reach.
        runs: Run folders to learn from, instead of the recipe's sources.
        recipe: Path of a recipe (YAML) on the worker; what is said here goes over it.
        start: Checkpoint to start from; empty is as in the recipe.
        engine: Where it runs; auto is Ray, where it is installed.
        workers: Of Ray; none is one for each GPU.
        settings: Every other key of the recipe, as {"step.epochs": 2}.
    """
    output = dated(output)
    form = {
        "output": output,
        "data.sources": sources_of(runs),
        "model.start": start or None,
        "launch.kind": None if engine == "auto" else engine,
        "launch.workers": workers,
    }
    with FlowRun("pretrain") as run:
        job = run.stage("prepare", _prepare, recipe, form, settings or {})
        run.end(run.stage("train", train, job, run))
    return run.state


def _prepare(recipe: str, form: dict[str, Any], settings: dict[str, Any]) -> "TrainingJob":
    from flows.deployable.parameters import recipe_of
    from flows.training import run
    from flows.training.recipe import PretrainRecipe

    return run.prepare(recipe_of(PretrainRecipe, recipe, form, settings))
