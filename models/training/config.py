"""How a training computes: settings alone, which load no torch, so recipes are read at once."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rule = Literal["masked", "original"]
Across = Literal["nothing", "negatives", "everything"]

LEVELS = 10  # a magnitude of 10 is the strongest


class AugmentConfig(BaseModel):
    """How pictures are varied; the defaults are pre-training's, finetuning crops (0.5, 1.0)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: tuple[float, float] | None = Field(
        (0.2, 1.0), description="least and largest share of the area; null: the whole picture"
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of left and right exchanged")
    operations: int = Field(2, ge=0, description="of RandAugment, drawn for each picture")
    magnitude: int = Field(5, ge=0, le=LEVELS, description="of these operations, 0 to 10")

    @model_validator(mode="after")
    def _check_crop(self) -> Self:
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop is {self.crop}; expected 0 < least <= largest <= 1, or null")
        return self
