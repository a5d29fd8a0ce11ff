"""What pre-training and finetuning have in common: data, steps, rates, and how often is saved."""

import math
from typing import Literal

from pydantic import Field

from models.training.config import AugmentConfig, Rule
from models.training.schedule import RateConfig
from pipeline.config import Config
from shards.training.source import SourceConfig

_ONE_LENGTH = "give one of step.epochs and step.steps, and null for the other"


class LoaderConfig(Config):
    """How samples are read; `lanes` is the most workers there can be, and all must divide it."""

    max_tokens: int = Field(30, ge=3, description="of a text, [CLS] and [SEP] included")
    lanes: int = Field(32, ge=1)
    shuffle: int = Field(1_000, ge=1, description="samples of each lane that wait for their turn")
    min_side: int = Field(16, ge=1, description="pixels")
    max_pixels: int = Field(50_000_000, ge=1)
    max_aspect: float = Field(20, ge=1)
    decode_threads: int = Field(2, ge=1)


class DataConfig(LoaderConfig):
    """What is trained on, and how it is read."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1)


class TowerConfig(Config):
    """How the towers of a network are trained; none of it changes what is computed afterwards."""

    dropout: float = Field(0.1, ge=0, lt=1, description="of the text transformer")
    drop_path: float = Field(0.0, ge=0, lt=1, description="of the vision tower's branches")
    recompute: int = Field(0, ge=0, description="last layers that keep no activations")
    freeze_vision: bool = Field(False, description="train the text transformer and heads alone")


class LossConfig(Config):
    """How a step computes; the defaults are the paper's."""

    alpha: float = Field(0.4, ge=0, le=1, description="share of the soft targets in ITC")
    ramp_epochs: float = Field(2, ge=0, description="over which alpha rises from 0")
    momentum: float = Field(0.995, ge=0, le=1)
    queue: int = Field(57_600, ge=1)
    negatives: Rule = Field("masked", description="of ITM: never equal pictures or texts")
    negatives_floor: float = Field(
        0, ge=0, description="added to the weights that pre-training's masked ones are drawn by"
    )
    itc_negatives: Rule = Field("masked", description="of ITC in pre-training: the same")


class StepConfig(Config):
    """How long to train, on how much at a time; either `epochs` or `steps` counts."""

    epochs: float | None = Field(20, gt=0)
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(2_880, ge=1, description="pairs of all workers in one step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is computed in")
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = Field(None, gt=0, description="largest norm of a step's gradient")


class SaveConfig(Config):
    """How often the state is saved, and what is said on the way."""

    every_steps: int = Field(1_000, ge=1)
    keep: int = Field(2, ge=1)
    log_every: int = Field(50, ge=1)
    itm_patience_samples: int = Field(1_000_000, ge=1, description="before the alarm of ITM")


class OptimizationConfig(Config):
    """How pictures are varied, how fast and for how long is learned."""

    augment: AugmentConfig = AugmentConfig()
    rate: RateConfig = RateConfig()
    step: StepConfig = StepConfig()


class TrainConfig(OptimizationConfig):
    """What pre-training and finetuning have in common."""

    seed: int = 0
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    data: DataConfig
    save: SaveConfig = SaveConfig()


def count_steps(config: StepConfig, rows_per_epoch: float) -> int:
    """Count the steps: as set, or as many as the epochs need, the last one filled up.

    Raises ValueError where neither is set.
    """
    if config.steps is not None:
        return config.steps
    if config.epochs is None:
        raise ValueError(_ONE_LENGTH)
    # rounded first: 1.1 epochs of 10 rows are 11 rows, and a little more in binary numbers
    return math.ceil(round(config.epochs * rows_per_epoch / config.batch_size, 6))


def check_division(config: TrainConfig, workers: int) -> None:
    """Raise ValueError unless lanes divide among workers, and a batch among lanes and parts."""
    lanes, step = config.data.lanes, config.step
    if lanes % workers:
        raise ValueError(
            f"data.lanes is {lanes}, which {workers} workers do not divide; choose other workers, "
            "or other lanes at the start of a training"
        )
    check_batch(step, lanes)
    if (step.epochs is None) == (step.steps is None):
        raise ValueError(_ONE_LENGTH)


def check_batch(step: StepConfig, lanes: int) -> None:
    """Raise ValueError unless a batch divides among lanes and parts."""
    part, rest = divmod(step.batch_size, step.accumulate)
    if rest or part % lanes:
        fitting = "" if rest else f", or set data.lanes to {math.gcd(part, lanes)}"
        raise ValueError(
            f"step.batch_size is {step.batch_size}; expected a multiple of data.lanes x "
            f"step.accumulate = {lanes * step.accumulate}. Choose such a batch{fitting}"
        )
