"""Score: how well does each text of a picture describe it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from pipeline.config import Config

if TYPE_CHECKING:  # a recipe is checked without waiting for torch
    from torch import Tensor

    from models.blip.preprocess import Preprocess
    from models.roles.filter import Score
    from shards.schema import TextRow


class ScoreConfig(Config):
    """Which filter scores, and how much of a text it reads."""

    model: str = Field(description="a Hugging Face BLIP folder, or the id of one on the hub")
    revision: str | None = Field(default=None, description="of the hub; the newest if not given")
    max_tokens: int = Field(default=35, ge=3, le=512, description="special tokens included")


class Scorer(Protocol):
    """What scores texts against pictures: BLIP's ITM and ITC here, other models as guests."""

    digest: str
    preprocess: Preprocess

    def count_tokens(self, text: str) -> int:
        """Count the tokens that it makes of a text, without special ones; threads may ask."""
        ...

    def score(self, images: Tensor, texts: Sequence[Sequence[str]]) -> Sequence[Sequence[Score]]:
        """Score all texts of each of uint8 images (B, 3, H, W)."""
        ...


def score(
    scorer: Scorer, images: Tensor, texts: Sequence[Sequence[TextRow]]
) -> list[list[TextRow]]:
    """Score a batch of rows of the texts table, one list per picture; returns completed rows."""
    scores = scorer.score(images, [[row["text"] for row in rows] for rows in texts])
    return [
        [_scored(row, result) for row, result in zip(rows, results, strict=True)]
        for rows, results in zip(texts, scores, strict=True)
    ]


def _scored(row: TextRow, result: Score) -> TextRow:
    return row | {
        "itm": result.itm,
        "itm_logit": result.itm_logit,
        "itc": result.itc,
        "tokens": result.tokens,
        "truncated": row.get("truncated", False) or result.truncated,
    }
