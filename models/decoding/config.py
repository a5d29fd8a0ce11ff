"""How texts are decoded: settings alone, which load no torch, so that recipes are read at once."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Decoding(BaseModel):
    """How captions are written; `top_k` 0 is true nucleus sampling, with no cut by rank."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["nucleus", "beam", "greedy"] = "nucleus"
    prompt: str = "a picture of "
    top_p: float = Field(default=0.9, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    beams: int = Field(default=3, ge=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    min_tokens: int = Field(default=5, ge=0)
    max_tokens: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _order(self) -> "Decoding":
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens {self.min_tokens} is more than max_tokens {self.max_tokens}"
            )
        return self
