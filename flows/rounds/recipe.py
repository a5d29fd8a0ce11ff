"""The recipes of rounds and of trials: each thing is said once, whatever stages it goes to."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat, ValidationError

from flows.recipe import (
    EngineConfig,
    Folder,
    InputConfig,
    LimitsConfig,
    Recipe,
    RecipeError,
    RecipeSection,
)
from flows.training.recipe import FinetuneRecipe, LaunchConfig, PretrainRecipe
from flows.training.trackers import Kind
from models.decoding.config import Decoding
from models.training.config import Across
from pipeline.clean.export import WriteConfig
from pipeline.clean.judge import JudgeConfig
from pipeline.clean.screen import ScreenConfig
from pipeline.train.config import (
    LoaderConfig,
    LossConfig,
    OptimizationConfig,
    SaveConfig,
    TowerConfig,
)
from pipeline.train.finetune_config import OwnCaptionsConfig
from pipeline.train.pretrain_config import ModelConfig
from shards.training.source import SourceConfig

_VIEW = re.compile(r"(?P<run>.+):(?P<view>[A-Za-z0-9_-]+)")


class PairsConfig(InputConfig):
    """Shards to train on; `repeat` is how many times an epoch goes through them."""

    repeat: FiniteFloat = Field(1.0, gt=0)


class HeldOutConfig(RecipeSection):
    """Human-annotated shards that nothing is trained on: the gate's measure."""

    urls: tuple[str, ...] = Field(min_length=1)


class PretrainSection(OptimizationConfig):
    """A pre-training: its network, its losses and its steps."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()


class TunedConfig(TowerConfig):
    """The network of a finetuning, which starts from the round's pre-trained one."""

    image_size: int | None = Field(None, ge=1, description="pixels; null: as in pre-training")


class FinetuneSection(OptimizationConfig):
    """A finetuning on human-annotated pairs: its network, its losses and its steps."""

    model: TunedConfig = TunedConfig()
    loss: LossConfig = LossConfig(ramp_epochs=1)
    across: Across = "everything"


class FilterSection(FinetuneSection):
    """A filter's finetuning; with `captions` it learns its round's captioner's mistakes, too."""

    captions: OwnCaptionsConfig | None = Field(None, description="null: the paper's way")


class CaptionSection(Decoding):
    """How web pictures are captioned; `prompt` is what the captioner is taught, too."""

    candidates: int = Field(1, ge=1, le=1000, description="captions per picture")


class ScoreSection(RecipeSection):
    """How much of a text the filter reads."""

    max_tokens: int = Field(35, ge=3, le=512, description="special tokens included")


class CleanSection(RecipeSection):
    """A cleaning of all web shards by the round's captioner and filter."""

    screen: ScreenConfig = ScreenConfig()
    caption: CaptionSection = CaptionSection()
    score: ScoreSection = ScoreSection()
    judge: JudgeConfig = JudgeConfig()
    write: WriteConfig = WriteConfig()
    limits: LimitsConfig = LimitsConfig()


class RetrievalSection(RecipeSection):
    """How retrieval is measured: ITM puts the best `k` of ITC in order."""

    k: int = Field(256, ge=1)
    limit: int | None = Field(None, ge=1, description="pairs at most, from the first on")
    batch_size: int = Field(32, ge=1)


class EvaluateSection(RetrievalSection):
    """How a round is measured; captions are written by `method`, else as in `clean.caption`."""

    method: Literal["beam", "greedy", "nucleus"] = "beam"
    beams: int = Field(3, ge=1)


class Experiment(RecipeSection):
    """What rounds and trials have in common; `held_out` is never trained on."""

    recipe_version: Literal[1] = 1
    output: Folder
    seed: int = 0
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    human: PairsConfig
    held_out: HeldOutConfig
    pretrain: PretrainSection = PretrainSection()
    data: LoaderConfig = LoaderConfig()
    save: SaveConfig = SaveConfig()
    launch: LaunchConfig = LaunchConfig()
    trackers: tuple[Kind, ...] = ("tensorboard",)


class TrialRecipe(Experiment):
    """A trial of views: the same pre-training on each."""

    evaluate: RetrievalSection = RetrievalSection()


class BootstrapRecipe(Experiment):
    """Rounds: pre-train, finetune captioner and filter, clean, evaluate, and again."""

    rounds: int = Field(2, ge=1)
    next: Literal["scratch", "continue"] = "scratch"
    gate: Literal["stop", "record"] = "stop"
    approve: bool = Field(False, description="a person lets each next round begin")
    web: PairsConfig
    captioner: FinetuneSection = FinetuneSection()
    filter: FilterSection = FilterSection()
    clean: CleanSection = CleanSection()
    evaluate: EvaluateSection = EvaluateSection()
    engine: EngineConfig = EngineConfig()


def pretraining(
    recipe: Experiment, folder: Path, source: SourceConfig, model: Mapping[str, Any]
) -> PretrainRecipe:
    """Compose a pre-training on one source and the human pairs; `model` changes the section's."""
    network = recipe.pretrain.model
    if "start" in model:
        network = network.going_on(model["start"])
    else:
        network = network.model_copy(update=dict(model))
    section = dict(recipe.pretrain) | {"model": network}
    return PretrainRecipe(**_shared(recipe, folder, (source, shards_of(recipe.human))), **section)


def finetuning(
    recipe: BootstrapRecipe,
    folder: Path,
    task: Literal["captioner", "filter"],
    start: Path,
    captioner: Path | None = None,
) -> FinetuneRecipe:
    """Compose a finetuning on the human pairs; a filter is given its round's captioner."""
    section = recipe.captioner if task == "captioner" else recipe.filter
    return FinetuneRecipe.model_validate(
        {
            **_shared(recipe, folder, (shards_of(recipe.human),)),
            **dict(section),
            "task": task,
            "model": section.model.model_dump() | {"start": str(start)},
            "prompt": recipe.clean.caption.prompt,
            "captions": _own_captions(recipe, captioner) if task == "filter" else None,
        }
    )


def cleaning(recipe: BootstrapRecipe, folder: Path, captioner: Path, scorer: Path) -> Recipe:
    """Compose the cleaning of all web shards."""
    caption = recipe.clean.caption.model_dump() | {"model": str(captioner)}
    score = recipe.clean.score.model_dump() | {"model": str(scorer)}
    section = dict(recipe.clean) | {"caption": caption, "score": score}
    return Recipe(
        input=InputConfig(urls=recipe.web.urls, root=recipe.web.root, text=recipe.web.text),
        output=str(folder),
        seed=recipe.seed,
        dtype=recipe.dtype,
        engine=recipe.engine,
        **section,
    )


def decoding(recipe: BootstrapRecipe) -> Decoding:
    """Compose how captions are written when they are measured."""
    shared = recipe.clean.caption.model_dump(exclude={"candidates"})
    evaluate = recipe.evaluate
    return Decoding.model_validate(shared | {"method": evaluate.method, "beams": evaluate.beams})


def shards_of(pairs: PairsConfig) -> SourceConfig:
    """Describe shards as a source of training, unfiltered."""
    return SourceConfig(shards=pairs.urls, root=pairs.root, text=pairs.text, repeat=pairs.repeat)


def parse_view(text: str) -> SourceConfig:
    """Read RUN or RUN:VIEW; a colon in a URL belongs to the run."""
    match = _VIEW.fullmatch(text)
    if match is None:
        return SourceConfig(run=text)
    return SourceConfig(run=match["run"], view=match["view"])


def check_composition(recipe: BootstrapRecipe) -> None:
    """Compose each stage once; RecipeError where keys that are right alone do not fit together."""
    here = Path(recipe.output)
    try:
        pretraining(recipe, here, shards_of(recipe.web), {})
        for task in ("captioner", "filter"):
            finetuning(recipe, here, task, here, here)
        cleaning(recipe, here, here, here)
        decoding(recipe)
    except ValidationError as error:
        problems = "; ".join(str(problem["msg"]) for problem in error.errors())
        raise RecipeError(f"the recipe does not fit together: {problems}") from None
    _check_own_captions(recipe)


def _check_own_captions(recipe: BootstrapRecipe) -> None:
    """Raise RecipeError where the captioner cannot write for the filter."""
    captions = recipe.filter.captions
    if captions is None:
        return
    if captions.prompt not in (OwnCaptionsConfig().prompt, recipe.clean.caption.prompt):
        raise RecipeError(
            f"filter.captions.prompt is {captions.prompt!r}; expected clean.caption.prompt = "
            f"{recipe.clean.caption.prompt!r}, which the captioner is taught. Leave it out here"
        )
    sizes = (recipe.captioner.model.image_size, recipe.filter.model.image_size)
    if sizes[0] != sizes[1]:
        raise RecipeError(
            f"captioner.model.image_size is {sizes[0]} and filter.model.image_size {sizes[1]}; "
            "with filter.captions both look at the same pictures: set both alike"
        )


def _own_captions(recipe: BootstrapRecipe, captioner: Path | None) -> dict[str, Any] | None:
    """Compose how a round's captioner writes for its filter: by the prompt that it was taught."""
    captions = recipe.filter.captions
    if captions is None:
        return None
    assert captioner is not None
    prompt = recipe.clean.caption.prompt
    return captions.model_dump() | {"captioner": str(captioner), "prompt": prompt}


def _shared(recipe: Experiment, folder: Path, sources: tuple[SourceConfig, ...]) -> dict[str, Any]:
    return {
        "output": str(folder),
        "seed": recipe.seed,
        "dtype": recipe.dtype,
        "data": recipe.data.model_dump() | {"sources": sources},
        "save": recipe.save,
        "launch": recipe.launch,
        "trackers": recipe.trackers,
    }
