"""What a recipe leaves open, resolved: dtype, models and candidates, as a run will have them."""

import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flows.engines.address import join_address, resolve_kind
from flows.extras import versions_of
from flows.recipe import (
    EngineConfig,
    Recipe,
    RecipeError,
    ScreenRecipe,
    as_recipe_errors,
)
from flows.stages.logged import (
    LIBRARIES,
)
from models.blip.config import TORCH_DTYPES, Dtype, DtypeChoice, resolve_dtype
from models.captioners.captioner import CaptionerInfo
from models.captioners.config import CaptionerConfig
from models.captioners.opening import check_captioner
from models.devices import choose_device
from models.scorers.config import ScorerConfig
from models.scorers.opening import check_scorer
from models.scorers.scorer import ScorerInfo
from pipeline.clean.config import identity
from pipeline.clean.lists import read_lists
from pipeline.printable import number_of
from shards.files.home import expand_home
from shards.inputs.candidates import Candidates, read_candidates
from shards.run.run import read_identity
from shards.store import Store

_log = logging.getLogger(__name__)
Known = TypeVar("Known", CaptionerInfo, ScorerInfo)


@dataclass(frozen=True, slots=True)
class Models:
    """What is known of a recipe's models, in its order."""

    captioners: tuple[CaptionerInfo, ...]
    scorers: tuple[ScorerInfo, ...]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe with nothing left open, its models read; `identity` is what decides the output."""

    recipe: Recipe | ScreenRecipe
    identity: Mapping[str, Any]
    about: Mapping[str, Any]
    weights_bytes: int
    candidates: Candidates | None = None
    lists: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def resolve(
    recipe: Recipe,
    store: Store,
    models: Models | None = None,
    lists: Mapping[str, bytes] | None = None,
) -> Resolved:
    """Fix what a recipe leaves open, as a run in this store will have it.

    `models` and `lists` are read, unless they were already.
    """
    kind = resolve_kind(recipe.engine.kind, recipe.engine.address)
    engine = recipe.engine.model_copy(update={"kind": kind, "forward_env": recipe.secrets})
    dtype = _pin_dtype(recipe.dtype, engine, store)
    known = models or read_models(recipe)
    update = {"dtype": dtype, "engine": engine}
    update |= {"caption": _alone(known.captioners, lambda model: model.config)}
    update |= {"score": _alone(known.scorers, lambda model: model.config)}
    recipe = recipe.model_copy(update=update)
    candidates = _read_candidates(recipe)
    if lists is None:
        lists = read_lists(recipe.skip, recipe.screen.block_hashes)
    with as_recipe_errors():
        named = identity(
            recipe, known.captioners, known.scorers, text=recipe.input.text, lists=lists
        )
    if candidates is not None:
        named["candidates"] = candidates.identity
    numbers = sum(model.parameters for model in known.captioners)
    numbers += sum(model.parameters for model in known.scorers)
    weights_bytes = TORCH_DTYPES[dtype].itemsize * numbers
    return Resolved(recipe, named, _about(known), weights_bytes, candidates, lists)


def _read_candidates(recipe: Recipe) -> Candidates | None:
    """Read the texts from outside that a recipe names, and tell how many are none."""
    if recipe.candidates is None:
        return None
    url = expand_home(recipe.candidates)
    candidates, left_out = read_candidates(url, recipe.screen.max_text_bytes)
    if left_out:
        _log.warning(
            "warning: %s of %s are left out: no key, no words, or more bytes than "
            "screen.max_text_bytes",
            number_of(left_out, "candidate"),
            url,
        )
    taken = {"web", *(section.name for section in recipe.captioners)}
    for origin in candidates.rows:
        if origin in taken:
            raise RecipeError(f"{url}: author {origin!r} is an origin of this run; name another")
        if origin not in recipe.judge.threshold:
            raise RecipeError(
                f"{url} has texts by {origin}, and judge.threshold none for them; add "
                f"judge.threshold.{origin}"
            )
    return candidates


def read_models(recipe: Recipe) -> Models:
    """Check all models of a recipe, whole, so that a broken one is found before a worker starts.

    Raises RecipeError where the recipe does not fit them, CheckpointError and EndpointError.
    """
    return Models(
        tuple(map(read_captioner, recipe.captioners)), tuple(map(read_scorer, recipe.scorers))
    )


def _pin_dtype(dtype: DtypeChoice, engine: EngineConfig, store: Store) -> Dtype:
    """Fix the dtype: a run keeps that of its beginning, on whatever machine it goes on."""
    if dtype == "auto" and store.exists("run.json"):
        dtype = read_identity(store)["dtype"]
    if dtype != "auto":
        return dtype
    if engine.kind == "ray" and (address := join_address(engine.address)):
        from flows.engines.ray.probe import best_dtype  # seconds to import

        return best_dtype(engine, address)
    return resolve_dtype("auto", choose_device(engine.device))


def read_captioner(section: CaptionerConfig) -> CaptionerInfo:
    """Check a captioner; raises RecipeError where the recipe does not fit it."""
    with as_recipe_errors():
        return check_captioner(section)


def read_scorer(section: ScorerConfig) -> ScorerInfo:
    """Check a scorer; raises RecipeError where the recipe does not fit it."""
    with as_recipe_errors():
        return check_scorer(section)


def _alone(models: Sequence[Known], what: Callable[[Known], Any]) -> Any:  # noqa: ANN401 - as what
    """Say something of all models as a recipe does: of one alone, or in a list."""
    said = tuple(map(what, models))
    return said[0] if len(said) == 1 else said


def _about(models: Models) -> dict[str, Any]:
    about = {
        "kind": "clean",
        "versions": versions_of("capfilt", *LIBRARIES),
        "host": platform.node(),
        "captioner": _alone(models.captioners, lambda model: dict(model.about)),
        "filter": _alone(models.scorers, lambda model: dict(model.about)),
    }
    varying = [model.config.name for model in models.captioners if not model.reproducible]
    return about | ({"not_reproducible": varying} if varying else {})
