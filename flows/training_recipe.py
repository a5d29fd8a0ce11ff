"""The recipes of pre-training and finetuning: what is trained, and on which machines."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.tracking import Kind
from pipeline.finetune import FinetuneConfig
from pipeline.pretrain import PretrainConfig


class LaunchConfig(BaseModel):
    """Where a training runs; `workers: auto` is one for each GPU, or one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ray", "local"] = "ray"
    address: str | None = Field(None, description="of a running Ray cluster")
    workers: int | Literal["auto"] = "auto"
    cpus_per_worker: int | Literal["auto"] = "auto"
    restarts: int = Field(3, ge=0, description="after a worker was lost")


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
