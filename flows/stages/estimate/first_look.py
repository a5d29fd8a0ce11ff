"""A first look at pictures: a sample cleaned, its report, what all would take, and their recipe."""

import logging
from dataclasses import dataclass

from flows.recipe import Recipe, dump_recipe
from flows.stages.estimate.plan import Plan, check, plan_from
from flows.stages.estimate.problems import Problems
from flows.stages.estimate.sample import SampleConfig
from flows.stages.first_checks import check_new
from flows.stages.logged import ResultListener
from pipeline.report.page import build_report, report_name
from shards.run.run import Run
from shards.run.view import open_view
from shards.store import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FirstLook:
    """The plan for all pictures, and where the sample's run, report and the recipe for all are."""

    plan: Plan
    run: str
    report: str
    recipe: str


def look_at(
    recipe: Recipe,
    folder: str,
    config: SampleConfig,
    watch: ResultListener,
    looked: Problems | None = None,
) -> FirstLook:
    """Clean a sample into a new folder, with its report, and the recipe of all beside it.

    `looked`: what was seen of the recipe at once, if somebody has looked.
    """
    check_new(folder)
    store = Store(folder)
    run, named = store.url("run"), store.url("recipe.yaml")
    task, problems = check(recipe, looked=looked)
    if task is None or problems:
        return FirstLook(Plan(tuple(problems), task), run, "", named)
    plan = plan_from(task, store.url(), config, watch)
    if plan.sample is None or not plan.sample.blocks:
        return FirstLook(plan, run, "", named)
    store.put("recipe.yaml", dump_recipe(recipe).encode())
    return FirstLook(plan, run, _write_report(run), named)


def _write_report(url: str) -> str:
    run = Run.open(url)
    view = open_view(run, None)
    name = report_name(view)
    run.store.put(name, build_report(run, view, _log.info))
    return run.store.url(name)
