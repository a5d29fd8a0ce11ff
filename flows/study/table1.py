"""The paper's central claim, in miniature: what do filter and captioner add to pre-training?

The study of BLIP's Table 1 on the toy world, whose truth is known. A network is pre-trained on the
noisy web texts and human pairs (arm `none`), finetuned into captioner and filter, and cleans the
web set; then new networks are pre-trained on what each arm keeps, from the same random start and
for the same steps. `round 2` does it once more with the network of `both`, which the paper did not.
More arms by name: captions by beam search (Table 2), one network as captioner and filter
(Table 4), going on from the first network instead of a new one (Table 13), and `own mistakes`, a
filter that its captioner's wrong captions were shown to.

All is measured without finetuning, on held-out pairs. Each stage is taken up again after a kill.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.engines.engine import ShardResult
from flows.recipe import Recipe
from flows.stages import clean
from flows.training import run as train
from flows.training.log import OpenDisplay, silent
from flows.training.recipe import FinetuneRecipe, PretrainRecipe
from models.blip import tokenizer
from models.blip.config import ORIGINAL
from models.checkpoints import checkpoint, folder
from models.checkpoints.conversion import for_hugging_face, import_folder
from models.decoding.generate import Decoding
from pipeline import evaluate
from pipeline.toy import world as toy_world
from pipeline.toy.judges import caption_is_right, let_through, pair_is_right
from pipeline.toy.world import Kinds, ToyWorldConfig, write_toy_world
from pipeline.train import pretrain
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.run.run import Run
from shards.run.snapshot import open_snapshot
from shards.store import Store

_log = logging.getLogger(__name__)

NEVER, ALWAYS = 2.0, 0.0  # thresholds that no probability, and every one, reaches
MAIN_ARMS = ("none", "filter only", "captioner only", "both", "round 2")
_VIEWS = {
    "filter only": {"web": 0.5, "synthetic": NEVER},
    "captioner only": {"web": ALWAYS, "synthetic": ALWAYS},
}
_ANNOTATED = ("human", "held-out")  # by people, who say several true things of a picture
_WORLD_WORDS = 1_000
_RERANKED = 32  # texts of a picture, and pictures of a text, that ITM puts in order
Section = dict[str, Any]


class WorldConfig(BaseModel):
    """How many pairs of each set there are, and how noisy the web is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    web: int = 6_000
    human: int = 1_000
    held_out: int = 400
    noise: float = 0.45
    kinds: Kinds = 4
    image_px: int = 32


class StudyRecipe(BaseModel):
    """The study: its world, and sections of the recipes that its stages run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    world: WorldConfig = WorldConfig()
    pretrain: Section
    captioner: Section
    filter: Section
    captions: Section = Field(default_factory=dict, description="as negatives: `own mistakes`")
    clean: Section = Field(default_factory=dict)


class Study:
    """One seed of the study, in a folder of its own."""

    def __init__(
        self, recipe: StudyRecipe, place: Path, seed: int, watch: OpenDisplay = silent
    ) -> None:
        self._recipe, self._place, self._seed = recipe, place.absolute(), seed
        self._watch = watch

    def run(self, arms: tuple[str, ...] = MAIN_ARMS) -> dict[str, Any]:
        """Measure the arms; gives numbers by arm, and of captioners and filters."""
        first, tools = self.first_round()
        run = Run.open(str(self._clean("run-1", tools)))
        found: dict[str, Any] = {"arms": {"none": self._measure(first)}, "tools": {}}
        found["tools"]["round 1"] = self.measure_tools(tools) | let_through(run)
        models: dict[str, Path] = {"none": first}
        for arm in arms:
            if arm != "none":
                models[arm] = self._arm(arm, run, models, found["tools"])
                found["arms"][arm] = self._measure(models[arm])
        Store(str(self._place)).put("study.json", json.dumps(found, indent=2).encode())
        return found

    def first_round(self) -> tuple[Path, "Tools"]:
        """Pre-train on the web set as it is, and finetune captioner and filter."""
        self._write_worlds()
        first = self._pretrain("none", {"shards": [str(self._place / "web")]})
        return first, self._tools("1", first)

    def _arm(self, arm: str, run: Run, models: Mapping[str, Path], tools: dict[str, Any]) -> Path:
        """Pre-train the network of an arm."""
        folder = run.store.url()
        if arm in _VIEWS:
            return self._pretrain(arm, {"run": folder, "view": self._view(run, arm)})
        if arm == "both":
            return self._pretrain(arm, {"run": folder})
        if arm == "continue":
            return self._pretrain(arm, {"run": folder}, models["none"])
        if arm == "beam":
            other = self._clean("run-beam", self._tools("1", models["none"]), method="beam")
            return self._pretrain(arm, {"run": str(other)})
        if arm == "shared":
            found = self._shared(models["none"])
        elif arm == "own mistakes":
            found = self._warned(models["none"])
        else:
            found = self._tools("2", models["both"])
        other = self._clean(f"run-{arm.replace(' ', '-')}", found)
        tools[arm] = self.measure_tools(found) | let_through(Run.open(str(other)))
        return self._pretrain(arm, {"run": str(other)})

    def _write_worlds(self) -> None:
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
            write_toy_world(self._place / name, config)

    def _start(self) -> Path:
        """Write the random network that all arms of a seed start from."""
        path = self._place / "start"
        if not path.exists():
            words = tokenizer.train(toy_world.corpus(), _WORLD_WORDS)
            model = pretrain.ModelConfig.model_validate(self._recipe.pretrain.get("model", {}))
            shape = pretrain.shape(model, words)
            checkpoint.create(path, "pretrain", shape, words, seed=self._seed, settings=ORIGINAL)
        return path

    def _pretrain(self, arm: str, source: Section, start: Path | None = None) -> Path:
        section = self._recipe.pretrain
        model = section.get("model", {}) | {"start": str(start or self._start())}
        sources = [source, {"shards": [str(self._place / "human")]}]
        output = self._place / f"pretrain-{arm.replace(' ', '-')}"
        own = {"data": section.get("data", {}) | {"sources": sources}, "model": model}
        recipe = PretrainRecipe.model_validate(section | own | self._local(output))
        return self._train(recipe, "pretrain")

    def _finetune(self, task: str, section: Section, start: Path, name: str, role: str) -> Path:
        sources = [{"shards": [str(self._place / "human")]}]
        own = {
            "task": task,
            "data": section.get("data", {}) | {"sources": sources},
            "model": section.get("model", {}) | {"start": str(start)},
        }
        recipe = FinetuneRecipe.model_validate(section | own | self._local(self._place / name))
        return self._train(recipe, role)

    def _train(self, recipe: PretrainRecipe | FinetuneRecipe, role: str) -> Path:
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

    def _tools(self, round_: str, start: Path) -> "Tools":
        captioner, filter_ = self._recipe.captioner, self._recipe.filter
        return Tools(
            self._finetune("captioner", captioner, start, f"captioner-{round_}", "captioner"),
            self._finetune("filter", filter_, start, f"filter-{round_}", "filter"),
        )

    def _shared(self, start: Path) -> "Tools":
        one = self._finetune("joint", self._recipe.filter, start, "joint", "captioner")
        return Tools(one, train.checkpoint_of(one.parent, "filter"))

    def _warned(self, start: Path) -> "Tools":
        """Finetune the filter once more, with its captioner's wrong captions among the texts."""
        captioner = self._tools("1", start).captioner
        captions = self._recipe.captions | {"captioner": str(captioner)}
        section = self._recipe.filter | {"captions": captions}
        return Tools(captioner, self._finetune("filter", section, start, "filter-warned", "filter"))

    def _clean(self, name: str, tools: "Tools", **caption: str) -> Path:
        section = self._recipe.clean
        own = {
            "input": {"urls": [str(self._place / "web")]},
            "output": str(self._place / name),
            "seed": self._seed,
            "caption": section.get("caption", {}) | caption | {"model": str(tools.captioner)},
            "score": section.get("score", {}) | {"model": str(tools.filter)},
            "write": {"clean": "none"},
            "engine": {"kind": "local"},
        }
        job = clean.prepare(Recipe.model_validate(section | own))
        clean.finish(job, clean.clean_shards(job, _Silent()))
        return self._place / name

    def _view(self, run: Run, arm: str) -> str:
        wish = ViewRequest(arm.replace(" ", "-"), _VIEWS[arm])
        rejudge(run, wish, open_snapshot(run), lambda _: None)
        return wish.name

    def _measure(self, model: Path) -> dict[str, Any]:
        """Measure a pre-trained network as it is: retrieval, and captions without a prompt."""
        content = import_folder(model).content
        captioner = model.with_name("zero-shot-captioner")
        if not captioner.exists():
            folder.write_new(captioner, for_hugging_face(content, "captioner"))
        pairs = [str(self._place / "held-out")]
        retrieval = evaluate.evaluate_retrieval(model, evaluate.read_pairs(pairs), k=_RERANKED)
        decoding = Decoding(method="greedy", prompt="", min_tokens=0)
        captions = self._captions(captioner, decoding)
        return {"retrieval": retrieval, "captions": captions}

    def measure_tools(self, tools: "Tools") -> dict[str, Any]:
        """Measure a filter on pairs half of which are wrong, and a captioner by the truth."""
        judged = evaluate.read_pairs([str(self._place / "judged")])
        return {
            "filter": evaluate.evaluate_filter(tools.filter, judged, label=pair_is_right),
            "captioner, nucleus": self._captions(tools.captioner, Decoding(top_k=0)),
            "captioner, greedy": self._captions(tools.captioner, Decoding(method="greedy")),
        }

    def _captions(self, captioner: Path, decoding: Decoding) -> dict[str, Any]:
        pairs = evaluate.read_pairs([str(self._place / "held-out")])
        return evaluate.evaluate_captioner(captioner, pairs, decoding, is_right=caption_is_right)


@dataclass(frozen=True, slots=True)
class Tools:
    """A captioner and a filter."""

    captioner: Path
    filter: Path


class _Silent:
    """Watches a cleaning without a word."""

    def begin(self, job: clean.CleanJob) -> None:
        pass

    def under_way(self, samples: int, size_bytes: int) -> None:
        pass

    def ended(self, result: ShardResult) -> None:
        pass
