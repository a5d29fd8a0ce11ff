"""The occasion of a screening: a cleaning that stops before any model, in a run of its own."""

import platform

from flows.engines.address import resolve_kind
from flows.extras import versions_of
from flows.recipe import ScreenRecipe
from flows.stages.clean import CleanJob, open_job
from flows.stages.first_checks import Checked
from flows.stages.logged import LIBRARIES
from flows.stages.resolve import Resolved
from pipeline.clean.config import screen_identity


def prepare(recipe: ScreenRecipe, part: tuple[int, int], checked: Checked) -> CleanJob:
    """Open or create the run, and see what is left to do; no model is looked for."""
    with checked.log.hearing():
        kind = resolve_kind(recipe.engine.kind, recipe.engine.address)
        gpus = 0.0 if recipe.engine.gpus_per_actor == "auto" else recipe.engine.gpus_per_actor
        engine = recipe.engine.model_copy(update={"kind": kind, "gpus_per_actor": gpus})
        named = screen_identity(recipe.screen, recipe.input.text, checked.lists)
        about = {
            "kind": "screen",
            "versions": versions_of("capfilt", *LIBRARIES),
            "host": platform.node(),
        }
        recipe = recipe.model_copy(update={"engine": engine})
        resolved = Resolved(recipe, named, about, weights_bytes=0, lists=checked.lists)
        return open_job(resolved, checked.inputs, checked.store, checked.log, part)
