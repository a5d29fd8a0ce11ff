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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.study.recipe import StudyRecipe
from flows.study.stages import Stages, Tools
from flows.training import run as train
from flows.training.log import OpenDisplay, silent
from models.checkpoints.conversion import for_hugging_face, import_folder
from models.decoding.config import Decoding
from pipeline import evaluate
from pipeline.toy.judges import caption_is_right, let_through, pair_is_right
from pipeline.train.state import write_checkpoint
from shards.run.run import Run
from shards.store import Store

NEVER, ALWAYS = 2.0, 0.0  # thresholds that no probability, and every one, reaches
MAIN_ARMS = ("none", "filter only", "captioner only", "both", "round 2")
_VIEWS = {
    "filter only": {"web": 0.5, "synthetic": NEVER},
    "captioner only": {"web": ALWAYS, "synthetic": ALWAYS},
}
_RERANKED = 32  # texts of a picture, and pictures of a text, that ITM puts in order


class Study:
    """One seed of the study, in a folder of its own."""

    def __init__(
        self, recipe: StudyRecipe, folder: Path, seed: int, watch: OpenDisplay = silent
    ) -> None:
        self._recipe, self._folder = recipe, folder.absolute()
        self._stages = Stages(recipe, self._folder, seed, watch)

    def run(self, arms: tuple[str, ...] = MAIN_ARMS) -> dict[str, Any]:
        """Measure the arms; returns numbers by arm, and of captioners and filters."""
        first, tools = self.first_round()
        run = Run.open(str(self._stages.clean("run-1", tools)))
        numbers: dict[str, Any] = {"arms": {"none": self._measure(first)}, "tools": {}}
        numbers["tools"]["round 1"] = self.measure_tools(tools) | let_through(run)
        models: dict[str, Path] = {"none": first}
        for arm in arms:
            if arm != "none":
                models[arm] = self._arm(arm, run, models, numbers["tools"])
                numbers["arms"][arm] = self._measure(models[arm])
        Store(str(self._folder)).put("study.json", json.dumps(numbers, indent=2).encode())
        return numbers

    def first_round(self) -> tuple[Path, Tools]:
        """Pre-train on the web set as it is, and finetune captioner and filter."""
        self._stages.write_worlds()
        first = self._stages.pretrain("none", {"shards": [str(self._folder / "web")]})
        return first, self._tools("1", first)

    def _arm(self, arm: str, run: Run, models: Mapping[str, Path], tools: dict[str, Any]) -> Path:
        """Pre-train the network of an arm."""
        folder = run.store.url()
        if arm in _VIEWS:
            view = self._stages.view(run, arm, _VIEWS[arm])
            return self._stages.pretrain(arm, {"run": folder, "view": view})
        if arm == "both":
            return self._stages.pretrain(arm, {"run": folder})
        if arm == "continue":
            return self._stages.pretrain(arm, {"run": folder}, models["none"])
        if arm == "beam":
            other = self._stages.clean("run-beam", self._tools("1", models["none"]), method="beam")
            return self._stages.pretrain(arm, {"run": str(other)})
        if arm == "shared":
            arm_tools = self._shared(models["none"])
        elif arm == "own mistakes":
            arm_tools = self._warned(models["none"])
        else:
            arm_tools = self._tools("2", models["both"])
        other = self._stages.clean(f"run-{arm.replace(' ', '-')}", arm_tools)
        tools[arm] = self.measure_tools(arm_tools) | let_through(Run.open(str(other)))
        return self._stages.pretrain(arm, {"run": str(other)})

    def _tools(self, round_: str, start: Path) -> Tools:
        recipe, finetune = self._recipe, self._stages.finetune
        return Tools(
            finetune("captioner", recipe.captioner, start, f"captioner-{round_}", "captioner"),
            finetune("filter", recipe.filter, start, f"filter-{round_}", "filter"),
        )

    def _shared(self, start: Path) -> Tools:
        captioner = self._stages.finetune("joint", self._recipe.filter, start, "joint", "captioner")
        return Tools(captioner, train.checkpoint_of(captioner.parent, "filter"))

    def _warned(self, start: Path) -> Tools:
        """Finetune the filter once more, with its captioner's wrong captions among the texts."""
        captioner = self._tools("1", start).captioner
        captions = self._recipe.captions | {"captioner": str(captioner)}
        section = self._recipe.filter | {"captions": captions}
        warned = self._stages.finetune("filter", section, start, "filter-warned", "filter")
        return Tools(captioner, warned)

    def _measure(self, model: Path) -> dict[str, Any]:
        """Measure a pre-trained network as it is: retrieval, and captions without a prompt."""
        content = import_folder(model).content
        captioner = model.with_name("zero-shot-captioner")
        if not captioner.exists():
            write_checkpoint(captioner, for_hugging_face(content, "captioner"))
        pairs = [str(self._folder / "held-out")]
        retriever = evaluate.open_retriever(model)
        retrieval = evaluate.measure_retrieval(retriever, evaluate.read_pairs(pairs), k=_RERANKED)
        decoding = Decoding(method="greedy", prompt="", min_tokens=0)
        captions = self._captions(captioner, decoding)
        return {"retrieval": retrieval, "captions": captions}

    def measure_tools(self, tools: Tools) -> dict[str, Any]:
        """Measure a filter on pairs half of which are wrong, and a captioner by the truth."""
        judged = evaluate.read_pairs([str(self._folder / "judged")])
        scorer = evaluate.open_filter(tools.filter)
        return {
            "filter": evaluate.measure_filter(scorer, judged, label=pair_is_right),
            "captioner, nucleus": self._captions(tools.captioner, Decoding(top_k=0)),
            "captioner, greedy": self._captions(tools.captioner, Decoding(method="greedy")),
        }

    def _captions(self, captioner: Path, decoding: Decoding) -> dict[str, Any]:
        pairs = evaluate.read_pairs([str(self._folder / "held-out")])
        opened = evaluate.open_captioner(captioner, decoding)
        return evaluate.measure_captioner(opened, pairs, is_right=caption_is_right)
