"""`clean`: caption, score and filter the pairs of web shards, into a run folder."""

import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.deployable.flow_run import FlowRun, dated, name_run

if TYPE_CHECKING:
    from flows.stages.clean import CleanJob, Work
    from flows.stages.summary import Summary

_log = logging.getLogger(__name__)
Share = Annotated[float, Field(ge=0, le=1)]


@flow(name="clean", flow_run_name=name_run, persist_result=False)
def clean(
    input: list[str],
    output: str,
    recipe: str = "",
    captioner: str = "",
    filter: str = "",
    threshold_web: Share | None = None,
    threshold_synthetic: Share | None = None,
    engine: Literal["auto", "ray", "local"] = "auto",
    settings: dict[str, Any] | None = None,
    report: bool = False,
) -> State[Any] | None:
    """Caption, score and filter web shards; a run that was cut off is taken up by the same form.

    Args:
        input: Tars, folders or patterns (web/{00000..00007}.tar), as the machines reach them.
        output: The run folder, new or to be taken up: a whole path, or a URL (s3://...).
        recipe: Path of a recipe (YAML) on the worker; what is said here goes over it.
        captioner: BLIP folder or hub id; empty is as in the recipe.
        filter: BLIP folder or hub id; empty is as in the recipe.
        threshold_web: Web texts that score less are filtered; none is as in the recipe (0.5).
        threshold_synthetic: The same, for the captioner's own texts.
        engine: Where the work runs; auto is Ray, where it is installed.
        settings: Every other key of the recipe, as {"caption.top_p": 0.95}.
        report: Write the report, too.
    """
    output = dated(output)
    form = {
        "input.urls": [dated(pattern) for pattern in input],
        "output": output,
        "caption.model": captioner or None,
        "score.model": filter or None,
        "judge.threshold.web": threshold_web,
        "judge.threshold.synthetic": threshold_synthetic,
        "engine.kind": None if engine == "auto" else engine,
    }
    with FlowRun("clean") as run:
        job = run.stage("prepare", _prepare, recipe, form, settings or {})
        work = run.stage("clean the shards", _clean_shards, job, run)
        summary = run.stage("finish", _finish, job, work)
        if report:
            run.stage("report", _report, output)
        run.end(summary)
    return run.state


def _prepare(recipe: str, form: dict[str, Any], settings: dict[str, Any]) -> "CleanJob":
    from flows.deployable.parameters import recipe_of
    from flows.recipe import Recipe
    from flows.stages import clean as stages

    return stages.prepare(recipe_of(Recipe, recipe, form, settings))


def _clean_shards(job: "CleanJob", run: FlowRun) -> "Work":
    from flows.stages import clean as stages
    from flows.stages.progress import CleanProgress

    return stages.clean_shards(job, CleanProgress(run.progress))


def _finish(job: "CleanJob", work: "Work") -> "Summary":
    from flows.stages import clean as stages
    from flows.stages.summary import of_cleaning

    return of_cleaning(stages.finish(job, work), new=bool(job.pending))


def _report(output: str) -> None:
    from pipeline.report.page import build_report, report_name
    from shards.run.run import Run
    from shards.run.view import open_view

    run = Run.open(output)
    view = open_view(run, None)
    run.store.put(report_name(view), build_report(run, view, _log.info))
