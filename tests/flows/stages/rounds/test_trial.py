"""Trials: every view is trained in the same way from the same start, and measured alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli.display.progress import RunProgress
from flows.recipe import RecipeError
from flows.rounds.recipe import BootstrapRecipe, TrialRecipe, cleaning
from flows.stages import clean
from flows.stages.rounds import trial
from models.blip import tokenizer
from models.blip.config import blip_config
from models.checkpoints import checkpoint
from pipeline.evaluate import EvaluateConfig, read_pairs
from pipeline.toy import world as toy_world
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.run.run import Run, RunMismatch
from shards.run.snapshot import open_snapshot
from tests.support.small_evaluation import evaluate_retrieval

Trial = Callable[..., TrialRecipe]


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, small_rounds: Callable[..., BootstrapRecipe]
) -> Path:
    """A run with two views: all of its texts, and half of the web's."""
    folder = tmp_path_factory.mktemp("trial")
    words = tokenizer.train(toy_world.corpus(), 200)
    config = blip_config("tiny", **words.config_fields, image_size=32)
    checkpoint.create(folder / "captioner", "captioner", config, words, seed=1)
    checkpoint.create(folder / "filter", "filter", config, words, seed=2)
    models = (folder / "captioner", folder / "filter")
    job = clean.prepare(cleaning(small_rounds(folder), folder / "run", *models))
    with RunProgress().shown() as progress:
        clean.finish(job, clean.clean_shards(job, progress))
    listed = open_snapshot(job.run)
    for wish in (
        ViewRequest("all", {"web": 0.0, "synthetic": 0.0}),
        ViewRequest("half", {"synthetic": 2.0}, {"web": 0.5}),
    ):
        rejudge(job.run, wish, listed, lambda _: None)
    return folder / "run"


@pytest.fixture
def recipe(small_world: Path, small_pretraining: dict[str, Any]) -> Trial:
    """Make a recipe of a trial into a folder; keywords go over it."""

    def make(output: Path, **changes: Any) -> TrialRecipe:
        values = {
            "output": str(output),
            "dtype": "fp32",
            "human": {"urls": [str(small_world / "human")]},
            "held_out": {"urls": [str(small_world / "held-out")]},
            "pretrain": small_pretraining,
            "evaluate": {"k": 8},
            "data": {"max_tokens": 24, "lanes": 12},
            "save": {"every_steps": 1, "log_every": 1},
            "trackers": [],
            "launch": {"kind": "local"},
        }
        return TrialRecipe.model_validate(values | changes)

    return make


def go(recipe: TrialRecipe, *views: str) -> dict[str, dict[str, Any]]:
    found = trial.run(trial.prepare(recipe, views))
    measures = [entry["measure"] for entry in found]
    assert measures == sorted(measures, reverse=True)
    return {str(entry["view"]): entry for entry in found}


def test_views_are_trained_alike_and_measured(
    tmp_path: Path, run: Path, recipe: Trial, small_world: Path
) -> None:
    views = go(recipe(tmp_path / "out"), f"{run}:all", f"{run}:half")
    assert set(views) == {"all", "half"}
    counts = {shard.counts.samples_in for shard in open_snapshot(Run.open(str(run))).shards}
    assert views["all"]["samples"] == 4 * counts.pop()
    assert 0 < views["half"]["samples"] < views["all"]["samples"]
    starts = set()
    for entry in views.values():
        folder = tmp_path / "out" / entry["name"]
        starts.add(json.loads((folder / "training.json").read_text())["identity"]["model"]["start"])
        pairs = read_pairs([str(small_world / "held-out")])
        config = EvaluateConfig(max_tokens=24, dtype="fp32")
        expected = evaluate_retrieval(folder / "model", pairs, config, k=8)
        assert entry["retrieval"] == expected
        assert entry["pretrain"]["steps"] == 4
    assert starts == {checkpoint.info(tmp_path / "out" / "start").digest}
    digests = {entry["pretrain"]["checkpoints"]["pretrain"] for entry in views.values()}
    assert len(digests) == 2


def test_what_is_done_is_kept_and_views_may_be_added(
    tmp_path: Path, run: Path, recipe: Trial
) -> None:
    made = recipe(tmp_path / "out")
    first = go(made, f"{run}:half")
    result = tmp_path / "out" / first["half"]["name"] / "result.json"
    written = result.stat().st_mtime_ns
    both = go(made, f"{run}:all")
    assert set(both) == {"all", "half"}
    assert both["half"] == first["half"]
    assert result.stat().st_mtime_ns == written
    recorded = json.loads((tmp_path / "out" / "trial.json").read_text())
    assert {entry["view"]: entry for entry in recorded["views"]} == both


def test_another_recipe_is_refused(tmp_path: Path, run: Path, recipe: Trial) -> None:
    trial.prepare(recipe(tmp_path / "out"), [f"{run}:all"])
    with pytest.raises(RunMismatch, match="seed: 0 -> 3"):
        trial.prepare(recipe(tmp_path / "out", seed=3), [f"{run}:all"])


def test_a_trial_counts_steps(
    tmp_path: Path, run: Path, recipe: Trial, small_pretraining: dict[str, Any]
) -> None:
    by_epochs = small_pretraining | {"step": {"epochs": 1, "batch_size": 12}}
    with pytest.raises(RecipeError, match=r"set pretrain\.step\.steps"):
        trial.prepare(recipe(tmp_path / "out", pretrain=by_epochs), [f"{run}:all"])
