"""The stages of a study's arms, each in a folder of its own, and taken up again after a kill."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.engines.engine import ShardResult
from flows.recipe import Recipe
from flows.stages import clean
from flows.study.recipe import Section, StudyRecipe
from flows.training import run as train
from flows.training.log import OpenDisplay
from flows.training.recipe import FinetuneRecipe, PretrainRecipe, TrainingRecipe
from models.blip import tokenizer
from pipeline.toy import world as toy_world
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from pipeline.train import pretrain
from pipeline.train.pretrain_config import ModelConfig
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.run.run import Run
from shards.run.snapshot import open_snapshot

_log = logging.getLogger(__name__)

_ANNOTATED = ("human", "held-out")  # by people, who say several true things of a picture
_WORLD_WORDS = 1_000


@dataclass(frozen=True, slots=True)
class Tools:
    """A captioner and a filter."""

    captioner: Path
    filter: Path


class Stages:
    """Runs the stages of one seed in its folder; each returns the folder of what it made."""

    def __init__(self, recipe: StudyRecipe, folder: Path, seed: int, watch: OpenDisplay) -> None:
        self._recipe, self._folder, self._seed, self._watch = recipe, folder, seed, watch

    def write_worlds(self) -> None:
        """Write the web set, the human pairs, and those that are measured on."""
        world, held = self._recipe.world, self._recipe.world.held_out
        sets = {
            "web": (world.web, world.noise),
            "human": (world.human, 0.0),
            "held-out": (held, 0.0),
            "judged": (2 * held, 0.5),
        }
        for number, (name, (samples, noise)) in enumerate(sets.items()):
            config = ToyWorldConfig(
                samples=samples,
                samples_per_shard=250,
                noise=noise,
                seed=100 * self._seed + number,
                kinds=world.kinds,
                image_px=world.image_px,
                all_texts=name in _ANNOTATED,
            )
            write_toy_world(self._folder / name, config)

    def _start(self) -> Path:
        """Write the random network that all arms of a seed start from."""
        path = self._folder / "start"
        if not path.exists():
            words = tokenizer.train(toy_world.corpus(), _WORLD_WORDS)
            pretrain.write_random(path, self._model(), words, self._seed)
        return path

    def _model(self) -> ModelConfig:
        return ModelConfig.model_validate(self._recipe.pretrain.get("model", {}))

    def pretrain(self, arm: str, source: Section, start: Path | None = None) -> Path:
        """Pre-train the network of an arm on a source and the human pairs."""
        section = self._recipe.pretrain
        model = self._model().going_on(str(start or self._start()))
        sources = [source, {"shards": [str(self._folder / "human")]}]
        output = self._folder / f"pretrain-{arm.replace(' ', '-')}"
        changed = {"data": section.get("data", {}) | {"sources": sources}, "model": model}
        recipe = PretrainRecipe.model_validate(section | changed | self._local(output))
        return self._train(recipe, "pretrain")

    def finetune(self, task: str, section: Section, start: Path, name: str, role: str) -> Path:
        """Finetune on the human pairs; returns the checkpoint of a role."""
        sources = [{"shards": [str(self._folder / "human")]}]
        changed = {
            "task": task,
            "data": section.get("data", {}) | {"sources": sources},
            "model": section.get("model", {}) | {"start": str(start)},
        }
        recipe = FinetuneRecipe.model_validate(section | changed | self._local(self._folder / name))
        return self._train(recipe, role)

    def _train(self, recipe: TrainingRecipe, role: str) -> Path:
        job = train.prepare(recipe)
        with self._watch(job.steps) as display:
            result = train.run(job, display)
        _log.info("seed %d: %s: %s s", self._seed, job.folder.name, result["seconds"])
        return train.checkpoint_of(job.folder, role)

    def _local(self, output: Path) -> Section:
        return {
            "output": str(output),
            "seed": self._seed,
            "launch": {"kind": "local"},
            "trackers": [],
        }

    def clean(self, name: str, tools: Tools, **caption: str) -> Path:
        """Clean the web set; `caption` goes over that section of the recipe."""
        section = self._recipe.clean
        changed = {
            "input": {"urls": [str(self._folder / "web")]},
            "output": str(self._folder / name),
            "seed": self._seed,
            "caption": section.get("caption", {}) | caption | {"model": str(tools.captioner)},
            "score": section.get("score", {}) | {"model": str(tools.filter)},
            "write": {"clean": "none"},
            "engine": {"kind": "local"},
        }
        job = clean.prepare(Recipe.model_validate(section | changed))
        clean.finish(job, clean.clean_shards(job, _Silent()))
        return self._folder / name

    def view(self, run: Run, arm: str, thresholds: Mapping[str, float]) -> str:
        """Judge a run anew by an arm's thresholds; returns the view's name."""
        request = ViewRequest(arm.replace(" ", "-"), thresholds)
        rejudge(run, request, open_snapshot(run), lambda _: None)
        return request.name


class _Silent:
    """Watches a cleaning without a word."""

    def begin(self, job: clean.CleanJob) -> None:
        pass

    def under_way(self, samples: int, size_bytes: int) -> None:
        pass

    def ended(self, result: ShardResult) -> None:
        pass
