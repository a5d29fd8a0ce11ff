"""The driver of a training: prepare it, launch its workers, read the result.

A training folder holds `recipe.yaml`, `training.json` (what decides the result: another recipe is
refused), `states/` (taken up again after a kill), `metrics.jsonl`, the trained checkpoints, and at
last `result.json`, which says that it is done.
"""

import json
import logging
import platform
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from flows.engines.address import check_output, join_address, resolve_kind
from flows.engines.engine import EngineError
from flows.extras import versions_of
from flows.lock import lock_folder
from flows.recipe import EngineConfig, RecipeError, as_recipe_errors, dump_recipe
from flows.training.log import Display, tail_metrics
from flows.training.recipe import LaunchConfig, PretrainRecipe, TrainingRecipe
from flows.training.worker import TrainingJob, work
from models.blip.config import Dtype, resolve_dtype
from models.blip.framing import check_max_tokens
from models.checkpoints import checkpoint, locate
from models.checkpoints.conversion import vocabulary
from models.checkpoints.description import Description, describe
from models.devices import choose_device
from models.training.workers import ALONE
from pipeline.train import finetune, pretrain
from pipeline.train.config import check_division, count_steps
from pipeline.train.tasks import TASKS
from shards.files.durable import TEMPORARY, is_marked, remove_marked, whole_folder
from shards.run.run import as_json, check_identity, fingerprint
from shards.store import Store
from shards.training.source import Source, SourceConfig
from shards.training.source_reader import open_source

_log = logging.getLogger(__name__)
_OUTSIDE = {"output", "launch", "trackers", "save", "recipe_version"}  # none changes the result
_LIBRARIES = ("capfilt", "torch", "transformers", "tokenizers", "pillow", "ray")


def prepare(recipe: TrainingRecipe) -> TrainingJob:
    """Open sources and start, check all that can be checked, and claim the training folder.

    Raises RecipeError, RunMismatch where the folder holds another training, FolderInUse where
    another process trains there, and what opening a source or a checkpoint raises.
    """
    check_output(recipe.output)
    folder, recipe = Path(recipe.output).absolute(), _pinned(recipe)
    sources = tuple(open_source(source) for source in recipe.data.sources)
    questions = tuple(open_source(source) for source in _questions(recipe))
    dtype = _dtype(folder, recipe)
    start = folder / "start" if recipe.model.start is None else locate.resolve(recipe.model.start)
    workers = recipe.launch.workers
    with as_recipe_errors():
        if not isinstance(recipe, PretrainRecipe):
            finetune.check_sources(recipe.task, sources)
            finetune.check_sources("vqa", questions)
        check_division(recipe, 1 if workers == "auto" else workers)
    with lock_folder(folder), _written(start, recipe, sources) as begun:
        with as_recipe_errors():
            described = describe(begun)
            _check_network(recipe, described, start)
        digest = checkpoint.info(described).digest
        _claim(folder, recipe, _identity(recipe, (sources, questions), digest, dtype))
    rows = sum(source.rows * source.repeat for source in sources)
    return TrainingJob(
        recipe, folder, dtype, sources, start, count_steps(recipe.step, rows), questions
    )


def run(job: TrainingJob, display: Display = lambda _: None) -> dict[str, Any]:
    """Train to the end, or from where a kill left it; return the content of `result.json`.

    Raises EngineError where the workers end and leave no result.
    """
    with lock_folder(job.folder):
        if (done := read_result(job.folder)) is not None:
            return done
        _remove_partial(job.folder)
        with tail_metrics(job, display):
            if job.recipe.launch.kind == "local":
                work(job, ALONE, choose_device(job.recipe.launch.device))
            else:
                _train_on_ray(job)
        result = read_result(job.folder)
    if result is None:
        raise EngineError(
            f"{job.folder} has no result.json, though the training has ended; expected a folder "
            "that all workers reach under the same path. Choose such an output folder"
        )
    return result


def _train_on_ray(job: TrainingJob) -> None:
    """Train on Ray, which may be lost when all is done: that it is done decides."""
    from flows.training import ray as ray_train  # seconds to import

    try:
        ray_train.launch(job)
    except EngineError as error:
        if read_result(job.folder) is None:
            raise
        _log.warning("the training is done, though Ray has ended badly: %s", error)


def read_result(folder: Path) -> dict[str, Any] | None:
    """Read what a training came to, or None while it is not done."""
    path = folder / "result.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def checkpoint_of(folder: Path, role: str) -> Path:
    """Find a trained checkpoint of a finished training; RecipeError while it is not done."""
    result = read_result(folder)
    if result is None:
        raise RecipeError(f"{folder} has no result.json: finish the training in it first")
    return folder / str(result["checkpoints"][role]["folder"])


def _remove_partial(folder: Path) -> None:
    """Remove checkpoints that kills have left half-written; the folder is held."""
    for path in filter(is_marked, folder.glob(".*.[0-9]*.partial")):
        # a worker that outlives its driver for a moment finds its half gone, and cannot publish it
        path.rename(path.with_name(f"{path.name}.{secrets.token_hex(4)}"))
    for path in folder.glob(".*.[0-9]*.partial.*"):
        remove_marked(path)
    for path in folder.glob(f"{TEMPORARY}probe-*"):
        path.unlink(missing_ok=True)


def _check_network(recipe: TrainingRecipe, described: Description, start: Path) -> None:
    """Raise ValueError unless the network can read a text, with the prompt before it."""
    vision, text = described.config.vision_config, described.config.text_config
    if _questions(recipe) and vision.hidden_size != text.hidden_size:
        raise ValueError(
            f"{start} has images of width {vision.hidden_size} and texts of {text.hidden_size}; a "
            "joint network answers questions only where they are equal. Finetune vqa by itself"
        )
    positions = described.config.text_config.max_position_embeddings
    check_max_tokens(recipe.data.max_tokens, positions, str(start))
    if isinstance(recipe, PretrainRecipe) or not TASKS[recipe.task].prompted:
        return
    prompt = len(described.tokenizer.encode([recipe.prompt])[0])
    if recipe.data.max_tokens + prompt > positions:
        raise ValueError(
            f"data.max_tokens is {recipe.data.max_tokens}, and the prompt has {prompt} tokens; "
            f"{start} takes {positions} together"
        )


def _questions(recipe: TrainingRecipe) -> tuple[SourceConfig, ...]:
    if isinstance(recipe, PretrainRecipe) or recipe.questions is None:
        return ()
    return recipe.questions.sources


def _pinned(recipe: TrainingRecipe) -> TrainingRecipe:
    """Resolve where it runs, and make a captioner's folder absolute: workers stand elsewhere."""
    launch = recipe.launch
    kind = resolve_kind(launch.kind, launch.address, launch.workers not in ("auto", 1))
    recipe = recipe.model_copy(update={"launch": launch.model_copy(update={"kind": kind})})
    if isinstance(recipe, PretrainRecipe) or recipe.captions is None:
        return recipe
    captioner = str(locate.resolve(recipe.captions.captioner))
    captions = recipe.captions.model_copy(update={"captioner": captioner})
    return recipe.model_copy(update={"captions": captions})


@contextmanager
def _written(start: Path, recipe: TrainingRecipe, sources: tuple[Source, ...]) -> Iterator[Path]:
    """Yield the start, or write it aside: it gets its name once the folder is this training's."""
    if start.exists():
        yield start
        return
    assert isinstance(recipe, PretrainRecipe)
    with whole_folder(start) as aside:
        with as_recipe_errors():
            pretrain.write_start(aside, recipe, sources)
        yield aside


def device_here(launch: LaunchConfig) -> torch.device:
    """Choose where this process runs a model: its machine need not have what the workers have."""
    return choose_device("cpu" if launch.device == "cpu" else "auto")


def _dtype(folder: Path, recipe: TrainingRecipe) -> Dtype:
    """Keep the dtype that a training was begun with; else `auto` is what its workers compute."""
    path, dtype, launch = folder / "training.json", recipe.dtype, recipe.launch
    if dtype == "auto" and path.is_file():
        dtype = json.loads(path.read_text(encoding="utf-8"))["identity"]["dtype"]
    if dtype != "auto":
        return resolve_dtype(dtype, device_here(launch))
    if launch.kind == "ray" and (address := join_address(launch.address)):
        from flows.engines.ray.probe import best_dtype  # seconds to import

        asked = EngineConfig(device=launch.device, start_timeout_s=launch.start_timeout_s)
        return best_dtype(asked, address)
    return resolve_dtype("auto", choose_device(launch.device))


def _identity(
    recipe: TrainingRecipe,
    sources: tuple[tuple[Source, ...], tuple[Source, ...]],
    start: str,
    dtype: Dtype,
) -> dict[str, Any]:
    """Gather what decides the result: of sources, start and words the content, not the place."""
    # what is null is left out: a later version's new key, not set, makes no other recipe
    dumped = recipe.model_dump(mode="json", exclude=_OUTSIDE, exclude_none=True)
    identity: dict[str, Any] = as_json(dumped)
    for section, opened in zip((identity["data"], identity.get("questions")), sources, strict=True):
        if section:
            section["sources"] = [{"name": s.name, "repeat": s.repeat} for s in opened]
    del identity["data"]["decode_threads"]
    identity["model"]["start"] = start
    if identity.get("captions"):
        captioner = Path(identity["captions"]["captioner"])
        identity["captions"]["captioner"] = checkpoint.info(captioner).digest
    if isinstance(words := identity["model"].get("words"), str):
        identity["model"]["words"] = fingerprint({"words": vocabulary(Path(words)).to_json()})
    return identity | {"dtype": dtype, "kind": type(recipe).__name__}


def _claim(folder: Path, recipe: TrainingRecipe, identity: Mapping[str, Any]) -> None:
    store = Store(str(folder))
    record = {
        "fingerprint": fingerprint(identity),
        "identity": identity,
        "versions": versions_of(*_LIBRARIES),
        "host": platform.node(),
    }
    store.create("training.json", json.dumps(record, indent=2, sort_keys=True).encode())
    check_identity(str(folder), "a training", json.loads(store.read("training.json")), record)
    store.create("recipe.yaml", dump_recipe(recipe).encode())
