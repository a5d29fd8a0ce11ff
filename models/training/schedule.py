"""How the learning rate and the share of soft targets go over a training: pure arithmetic."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RateConfig(BaseModel):
    """The learning rate; the defaults are those of BLIP's pre-training code (base size).

    `exponential` multiplies it by `factor` after each epoch (the paper says 0.85, the code 0.9);
    `cosine`, for finetuning, lets it fall towards `lowest`, where it would be after the last step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    highest: float = Field(3e-4, gt=0)
    lowest: float = Field(1e-6, ge=0)
    warmup_from: float = Field(1e-6, ge=0)
    warmup_steps: int = Field(3_000, ge=0)
    decay: Literal["exponential", "cosine"] = "exponential"
    factor: float = Field(0.9, gt=0, le=1)
    temperature: float = Field(1.0, gt=0, le=1, description="times the rate, for ITC's temperature")


def learning_rate(config: RateConfig, step: int, steps: int, epoch: float) -> float:
    """Compute the rate of a step, counted from 0, of so many; `epoch`: how many are done by then.

    The warm-up does not end with the first epoch, as in the original, where a set of less than
    3,000 steps jumps from the middle of it to the full rate.
    """
    if step < config.warmup_steps:
        share = step / config.warmup_steps
        return config.warmup_from + share * (config.highest - config.warmup_from)
    if config.decay == "exponential":
        return max(config.lowest, config.highest * config.factor ** int(epoch))
    done = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.lowest + (config.highest - config.lowest) * (1 + math.cos(math.pi * done)) / 2


def distillation_alpha(alpha: float, epoch: float, ramp_epochs: float) -> float:
    """Let the share of soft targets rise linearly from 0 to `alpha` (ALBEF, as its code has it)."""
    return alpha if epoch >= ramp_epochs else alpha * epoch / ramp_epochs
