"""The seam: what scores texts against pictures, whichever model is behind it.

A score is a fact of one text and one picture: it never depends on the other texts at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from models.guests.picture import Prepared, TakesPixels

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from models.scorers.config import BlipScorerConfig, DualEncoderConfig


class Scored(Protocol):
    """What a scorer says of a text; see `TextScores`."""

    @property
    def values(self) -> tuple[float, ...]:
        """Its scores, in the order of the scorer's names."""

    @property
    def tokens(self) -> int:
        """The number of its tokens, before it was cut."""

    @property
    def truncated(self) -> bool:
        """Whether it was cut."""


@dataclass(frozen=True, slots=True)
class TextScores:
    """The scores of a text, in the order of the scorer's names.

    `tokens` counts those of the text, without special ones, before it was cut; `truncated`: it was
    cut.
    """

    values: tuple[float, ...]
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """What is known of a scorer before its weights are in memory.

    `config` leads to the same weights on any machine. `scores` are the names of what it says of a
    text, `parameters` those that a process must hold; `about` is for the run's record.
    """

    digest: str
    config: BlipScorerConfig | DualEncoderConfig
    scores: tuple[str, ...]
    parameters: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """What scores texts.

    `digest` covers all that changes its output; `scores` names what it says of each text. Models
    with equal `prepare_key` prepare pictures alike, so that one preparation serves both.
    """

    digest: str
    scores: tuple[str, ...]
    prepare_key: str

    def prepare(self, picture: Image.Image) -> Prepared:
        """Make a picture of any size and shape ready; several threads may ask at once."""
        ...

    def score(
        self, batch: Sequence[Prepared], texts: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Scored]]:
        """Score the texts of each prepared picture; their numbers may differ, and may be 0."""
        ...


class PixelScorer(TakesPixels, Protocol):
    """A scorer of pictures of one size."""

    digest: str
    scores: tuple[str, ...]

    def count_tokens(self, text: str) -> int:
        """Count the tokens that it makes of a text, without special ones; threads may ask."""
        ...

    def score(self, images: Tensor, texts: Sequence[Sequence[str]]) -> Sequence[Sequence[Scored]]:
        """Score the texts of each of uint8 images (B, 3, H, W)."""
        ...
