"""The recipes of pre-training and finetuning: what is trained, and on which machines."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from flows.training.trackers import Kind
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.pretrain import PretrainConfig


class LaunchConfig(BaseModel):
    """Where a training runs; `workers: auto` is one for each GPU, or one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ray", "local"] = "ray"
    address: str | None = Field(None, description="of a running Ray cluster")
    workers: PositiveInt | Literal["auto"] = "auto"
    cpus_per_worker: PositiveInt | Literal["auto"] = "auto"
    restarts: int = Field(3, ge=0, description="after a worker was lost")

    @model_validator(mode="after")
    def _alone(self) -> "LaunchConfig":
        if self.kind == "local" and self.workers not in ("auto", 1):
            raise ValueError(
                f"workers is {self.workers}, and kind local trains in one process alone; set "
                "workers to auto, or kind to ray"
            )
        return self


class PretrainRecipe(PretrainConfig):
    """A pre-training: what to do, where it is written, and on which machines."""

    recipe_version: Literal[1] = 1
    output: str
    launch: LaunchConfig = LaunchConfig()
    trackers: tuple[Kind, ...] = ("tensorboard",)


class FinetuneRecipe(FinetuneConfig):
    """A finetuning: what to do, where it is written, and on which machines."""

    recipe_version: Literal[1] = 1
    output: str
    launch: LaunchConfig = LaunchConfig()
    trackers: tuple[Kind, ...] = ("tensorboard",)


TrainingRecipe = PretrainRecipe | FinetuneRecipe
