"""The occasion of a screening: a cleaning that stops before any model, in a run of its own."""

import platform

from flows.engines.address import check_output, resolve_kind
from flows.extras import versions_of
from flows.recipe import ScreenRecipe
from flows.run_log.log import RunLog
from flows.stages.clean import CleanJob, open_job
from flows.stages.first_checks import Checked, check_cluster
from flows.stages.logged import LIBRARIES
from flows.stages.resolve import Resolved
from pipeline.clean.config import screen_identity
from pipeline.clean.lists import read_lists
from shards.inputs.listing import list_inputs
from shards.store import Store


def check_screening(recipe: ScreenRecipe) -> Checked:
    """Find what a screening names: run folder, inputs, and the cluster it joins."""
    check_output(recipe.output)
    store = Store(recipe.output)
    log = RunLog(store, recipe.engine.forward_env)
    with log.hearing():
        inputs = tuple(list_inputs(recipe.input.urls, recipe.input.root, recipe.input.options))
        check_cluster(recipe.engine.kind, recipe.engine.address)
    return Checked(store, log, inputs)


def prepare(recipe: ScreenRecipe, part: tuple[int, int], checked: Checked) -> CleanJob:
    """Open or create the run, and see what is left to do; no model is looked for."""
    with checked.log.hearing():
        kind = resolve_kind(recipe.engine.kind, recipe.engine.address)
        gpus = 0.0 if recipe.engine.gpus_per_actor == "auto" else recipe.engine.gpus_per_actor
        engine = recipe.engine.model_copy(update={"kind": kind, "gpus_per_actor": gpus})
        lists = read_lists(recipe.skip, recipe.screen.block_hashes)
        named = screen_identity(recipe.screen, recipe.input.text, lists)
        about = {
            "kind": "screen",
            "versions": versions_of("capfilt", *LIBRARIES),
            "host": platform.node(),
        }
        recipe = recipe.model_copy(update={"engine": engine})
        resolved = Resolved(recipe, named, about, weights_bytes=0, lists=lists)
        return open_job(resolved, checked.inputs, checked.store, checked.log, part)
