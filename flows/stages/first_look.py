"""A first look at pictures: a sample cleaned, its report, what all would take, and their recipe."""

import logging
from dataclasses import dataclass

from flows.engines.address import check_output
from flows.recipe import Recipe, dump_recipe
from flows.stages.logged import ResultListener
from flows.stages.plan import Plan, check, plan_from
from flows.stages.sample import SampleConfig
from pipeline.report.page import build_report, report_name
from shards.errors import UsageError
from shards.run.run import Run
from shards.run.view import open_view
from shards.store import Store

_log = logging.getLogger(__name__)


class NotEmpty(UsageError):  # noqa: N818 - reads as what happened
    """A folder for a first look that holds something already."""


@dataclass(frozen=True, slots=True)
class FirstLook:
    """The plan for all pictures, and where the sample's run, report and the recipe for all are."""

    plan: Plan
    run: str
    report: str
    recipe: str


def look_at(recipe: Recipe, folder: str, config: SampleConfig, watch: ResultListener) -> FirstLook:
    """Clean a sample into a new folder, with its report, and the recipe of all beside it."""
    check_output(folder)
    store = Store(folder)
    if there := store.list():
        raise NotEmpty(
            f"{store.url()} is not empty (found {there[0]}): give another --output, or remove it"
        )
    run, named = store.url("run"), store.url("recipe.yaml")
    task, problems = check(recipe)
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
