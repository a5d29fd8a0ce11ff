"""The recipes of pre-training and finetuning: what is trained, and on which machines."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from flows.recipe import Folder, RecipeSection
from flows.training.trackers import Kind
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.pretrain_config import PretrainConfig


class LaunchConfig(RecipeSection):
    """Where a training runs; `workers: auto` is one for each GPU, or one."""

    kind: Literal["auto", "ray", "local"] = Field(
        "auto", description="ray where it is installed, else local"
    )
    address: str | None = Field(None, description="of a running Ray cluster")
    workers: PositiveInt | Literal["auto"] = "auto"
    cpus_per_worker: PositiveInt | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto refuses a GPU that torch cannot use"
    )
    forward_env: tuple[str, ...] = Field((), description="variables that workers need, by name")
    start_timeout_s: float = Field(600, gt=0, description="for the machines to come")
    restarts: int = Field(3, ge=0, description="after a worker or a machine was lost")

    @model_validator(mode="after")
    def _alone(self) -> "LaunchConfig":
        if self.kind == "local" and self.workers not in ("auto", 1):
            raise ValueError(
                f"workers is {self.workers}, and kind local trains in one process alone; set "
                "workers to auto, or kind to ray"
            )
        return self


class _Training(RecipeSection):
    recipe_version: Literal[1] = 1
    output: Folder
    launch: LaunchConfig = LaunchConfig()
    trackers: tuple[Kind, ...] = ("tensorboard",)


class PretrainRecipe(_Training, PretrainConfig):
    """A pre-training: what to do, where it is written, and on which machines."""


class FinetuneRecipe(_Training, FinetuneConfig):
    """A finetuning: what to do, where it is written, and on which machines."""


TrainingRecipe = PretrainRecipe | FinetuneRecipe
