"""What a mistyped command is told at once: checks that load no library of seconds."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows.engines.address import check_output, check_reachable, join_address
from flows.recipe import Recipe, RecipeError, ScreenRecipe, as_recipe_errors
from flows.rounds.recipe import (
    BootstrapRecipe,
    Experiment,
    TrialRecipe,
    check_composition,
    parse_view,
    shards_of,
)
from flows.run_log.log import RunLog
from flows.training.recipe import FinetuneRecipe, TrainingRecipe
from models.captioners.config import CaptionerConfig
from models.checkpoints import locate
from models.scorers.config import ScorerConfig
from pipeline.clean.lists import check_skip_list, doubt_skip_list, read_lists
from pipeline.train.config import StepConfig, check_batch, check_division
from shards.errors import UsageError
from shards.inputs.listing import list_inputs
from shards.inputs.shard import InputShard
from shards.run.exclusion import SKIP_NAME
from shards.store import Store
from shards.training.source_reader import check_source

_log = logging.getLogger(__name__)


class NotEmpty(UsageError):  # noqa: N818 - reads as what happened
    """A folder for a first look that holds something already."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a cleaning names, as it was found: where it goes, what tells of it, inputs and lists."""

    store: Store
    log: RunLog
    inputs: tuple[InputShard, ...]
    lists: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def check_cleaning(recipe: Recipe) -> Checked:
    """Find what a cleaning names: run folder, inputs, checkpoints, and the cluster it joins."""
    check_output(recipe.output)
    return _find(recipe, recipe.secrets, [*recipe.captioners, *recipe.scorers])


def check_screening(recipe: ScreenRecipe) -> Checked:
    """Find what a screening names, as `check_cleaning` does; it has no checkpoints."""
    check_output(recipe.output)
    return _find(recipe, recipe.engine.forward_env, [])


def _find(
    recipe: Recipe | ScreenRecipe,
    secrets: Sequence[str],
    models: Sequence[CaptionerConfig | ScorerConfig],
) -> Checked:
    store = Store(recipe.output)
    log = RunLog(store, tuple(secrets))
    with log.hearing():
        for model in models:
            model.look_for()
        inputs = tuple(list_inputs(recipe.input.urls, recipe.input.root, recipe.input.options))
        lists = check_lists(recipe, inputs)
        check_cluster(recipe.engine.kind, recipe.engine.address)
    return Checked(store, log, inputs, lists)


def check_lists(recipe: Recipe | ScreenRecipe, inputs: Sequence[InputShard]) -> dict[str, bytes]:
    """Read the lists that a recipe names; ListError for a skip-list of another input.

    One that may be of another is warned of: models would work for hours before it shows.
    """
    lists = read_lists(recipe.skip, recipe.screen.block_hashes)
    if recipe.skip is not None:
        check_skip_list(lists[SKIP_NAME], [shard.shard for shard in inputs])
        if doubt := doubt_skip_list(recipe.skip, lists[SKIP_NAME], inputs):
            _log.warning("warning: %s", doubt)
    return lists


def check_new(folder: str) -> None:
    """Refuse what cannot be a new folder, or holds something."""
    check_output(folder)
    store = Store(folder)
    if there := store.list():
        raise NotEmpty(
            f"{store.url()} is not empty (found {there[0]}): give another --output, or remove it"
        )


def check_begun(folder: Path) -> None:
    """Refuse a folder in which no rounds were begun."""
    if not (folder / "rounds.json").is_file():
        raise RecipeError(f"{folder} holds no rounds: there is no rounds.json in it")


def check_training(recipe: TrainingRecipe) -> None:
    """Find what a training names: its folder, start and sources, and the cluster it joins."""
    check_output(recipe.output)
    _check_model("model.start", recipe.model.start)
    sources = [*recipe.data.sources]
    if isinstance(recipe, FinetuneRecipe):
        if recipe.captions is not None:
            _check_model("captions.captioner", recipe.captions.captioner)
        sources += recipe.questions.sources if recipe.questions else ()
    for source in sources:
        check_source(source)
    workers = recipe.launch.workers
    with as_recipe_errors():
        check_division(recipe, 1 if workers == "auto" else workers)
    check_cluster(recipe.launch.kind, recipe.launch.address)


def check_rounds(recipe: BootstrapRecipe) -> None:
    """Find what rounds name, and whether their stages fit together."""
    check_composition(recipe)
    _check_experiment(recipe, recipe.pretrain.step, recipe.captioner.step, recipe.filter.step)
    check_source(shards_of(recipe.web))
    check_cluster(recipe.engine.kind, recipe.engine.address)


def check_trial(recipe: TrialRecipe, views: Sequence[str]) -> None:
    """Find what a trial names, its views among it, and whether it is fair to them."""
    step = recipe.pretrain.step
    if step.steps is None or step.epochs is not None:
        raise RecipeError(
            "a trial gives each view as many steps; set pretrain.step.steps, and "
            "pretrain.step.epochs to null: by epochs a larger view would be trained on for longer"
        )
    _check_experiment(recipe, step)
    for view in views:
        check_source(parse_view(view))


def _check_experiment(recipe: Experiment, *steps: StepConfig) -> None:
    check_output(recipe.output)
    with as_recipe_errors():
        for step in steps:
            check_batch(step, recipe.data.lanes)
    _check_model("pretrain.model.start", recipe.pretrain.model.start)
    check_source(shards_of(recipe.human))
    list_inputs(recipe.held_out.urls)
    check_cluster(recipe.launch.kind, recipe.launch.address)


def _check_model(key: str, name: str | None) -> None:
    """Refuse a checkpoint that is not there, by its key: a recipe may name several."""
    try:
        if name is not None:
            locate.look_for(name)
    except locate.CheckpointError as error:
        raise locate.CheckpointError(f"{key}: {error}") from None


def check_cluster(kind: str, address: str | None) -> None:
    """Refuse the address of a cluster where none answers."""
    if kind != "local" and (joined := join_address(address)):
        check_reachable(joined)
