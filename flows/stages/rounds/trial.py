"""A trial: the same small pre-training on each of several views.

Which threshold is best, which captioner? The answer is what a network learns from what is kept:
the same network from the same random start, for the same steps, measured by retrieval on held-out
pairs. Each view's training is taken up again after a kill; more views may be added later.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.recipe import RecipeError, as_recipe_errors, dump_recipe
from flows.rounds.ledger import EVALUATION, Entry, gate_measure, read_evaluation, read_training
from flows.rounds.recipe import TrialRecipe, parse_view, pretraining
from flows.stages.first_checks import check_trial
from flows.stages.rounds.bootstrap import free_memory, identity_of, measure, open_human
from flows.training import run as train
from flows.training.log import OpenDisplay, silent
from flows.training.recipe import PretrainRecipe
from models.blip.config import Dtype, resolve_dtype
from pipeline.train import pretrain
from shards.files.durable import whole_folder
from shards.naming import encode_name
from shards.run.run import check_identity, fingerprint
from shards.store import Store
from shards.training.source import Source, SourceConfig
from shards.training.source_reader import open_source

RESULT = "trial.json"


@dataclass(frozen=True, slots=True)
class Contender:
    """A view of a run, under a name that its content is part of."""

    name: str
    config: SourceConfig
    source: Source


@dataclass(frozen=True, slots=True)
class TrialJob:
    """A prepared trial; `start` is what all trainings begin from."""

    recipe: TrialRecipe
    folder: Path
    dtype: Dtype
    start: str
    contenders: tuple[Contender, ...]


def prepare(recipe: TrialRecipe, views: Sequence[str]) -> TrialJob:
    """Open views and pairs, check all that can be checked, and write the common start."""
    check_trial(recipe, views)
    folder = Path(recipe.output).absolute()
    human, held_out = open_human(recipe)
    contenders = tuple(_contender(parse_view(view)) for view in views)
    dtype = resolve_dtype(_recorded_dtype(folder, recipe), train.device_here(recipe.launch))
    recipe = recipe.model_copy(update={"output": str(folder), "dtype": dtype})
    _claim(folder, recipe, identity_of(recipe, human, held_out))
    start = _write_start(recipe, folder, contenders, human)
    return TrialJob(recipe, folder, dtype, start, contenders)


def run(
    job: TrialJob,
    begin: Callable[[str], None] = lambda _: None,
    watch: OpenDisplay = silent,
) -> list[Entry]:
    """Train and measure what is not done yet; return all views, the best first.

    `begin` hears the name of each view that is begun; `watch` shows its training.
    """
    for contender in job.contenders:
        if _read(job.folder / contender.name) is None:
            begin(contender.name)
            _try(job, contender, watch)
            free_memory()
        _write(job)
    return _table(job)


def _try(job: TrialJob, contender: Contender, watch: OpenDisplay) -> None:
    folder = job.folder / contender.name
    model = {"start": job.start}
    recipe = pretraining(job.recipe, folder, contender.config, model)
    training = train.prepare(recipe)
    with watch(training.steps) as display:
        train.run(training, display)
    retrieval = measure(
        train.checkpoint_of(folder, "pretrain"),
        job.recipe,
        job.recipe.evaluate,
        job.recipe.data.max_tokens,
        job.dtype,
    )
    Store(str(folder)).put(EVALUATION, json.dumps(retrieval, indent=2).encode())


def _contender(config: SourceConfig) -> Contender:
    source = open_source(config)
    run = encode_name(str(config.run).rstrip("/").rpartition("/")[2])
    digest = fingerprint({"source": source.name})[:8]
    return Contender(f"{run}-{config.view or 'own'}-{digest}", config, source)


def _write_start(
    recipe: TrialRecipe, folder: Path, contenders: Sequence[Contender], human: Source
) -> str:
    """Write the network that all begin from; its words come from all that the first call gave."""
    if recipe.pretrain.model.start is not None:
        return recipe.pretrain.model.start
    path = folder / "start"
    if not path.exists():
        composed = _composed(recipe, folder, contenders[0].config)
        sources = [human, *(contender.source for contender in contenders)]
        with as_recipe_errors(), whole_folder(path) as aside:
            pretrain.write_start(aside, composed, sources)
    return str(path)


def _composed(recipe: TrialRecipe, folder: Path, source: SourceConfig) -> PretrainRecipe:
    try:
        return pretraining(recipe, folder, source, {})
    except ValidationError as error:
        raise RecipeError(f"the recipe does not fit together: {error}") from None


def _claim(folder: Path, recipe: TrialRecipe, identity: dict[str, Any]) -> None:
    store = Store(str(folder))
    head = {"fingerprint": fingerprint(identity), "identity": identity, "views": []}
    store.create(RESULT, json.dumps({"trial_version": 1, **head}, indent=2).encode())
    check_identity(str(folder), "a trial", _recorded(folder), head)
    store.put("recipe.yaml", dump_recipe(recipe).encode())


def _recorded(folder: Path) -> dict[str, Any]:
    path = folder / RESULT
    try:
        recorded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        recorded["fingerprint"], recorded["identity"]["dtype"], recorded["views"]
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeError(
            f"{path} cannot be read: {error!r}. Delete it and run the same command again: it is "
            "written anew from the results of the views"
        ) from None
    return recorded


def _recorded_dtype(folder: Path, recipe: TrialRecipe) -> Any:  # noqa: ANN401 - checked by its reader
    """Keep the dtype that the trial was begun with."""
    if recipe.dtype == "auto" and (folder / RESULT).is_file():
        return _recorded(folder)["identity"]["dtype"]
    return recipe.dtype


def _read(folder: Path) -> Entry | None:
    """Read what a view came to, or None while it is not done."""
    training, retrieval = read_training(folder), read_evaluation(folder)
    if training is None or retrieval is None:
        return None
    return {"measure": gate_measure(retrieval), "retrieval": retrieval, "pretrain": training}


def _table(job: TrialJob) -> list[Entry]:
    """Gather the views of this trial, the best first, and those of earlier calls too."""
    views = {entry["name"]: entry for entry in _recorded(job.folder)["views"]}
    for contender in job.contenders:
        entry = _read(job.folder / contender.name)
        if entry is not None:
            view = {"run": contender.config.run, "view": contender.config.view}
            about = {"name": contender.name, **view, "samples": contender.source.rows}
            views[contender.name] = about | entry
    return sorted(views.values(), key=lambda entry: (-entry["measure"], entry["name"]))


def _write(job: TrialJob) -> None:
    recorded = _recorded(job.folder)
    recorded["views"] = _table(job)
    Store(str(job.folder)).put(RESULT, json.dumps(recorded, indent=2).encode())
