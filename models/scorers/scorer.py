"""The seam: what scores texts against pictures, whichever model is behind it.

A score is a fact of one text and one picture: it never depends on the other texts at hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from models.guests.picture import Prepared


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
    """What is known of a scorer before its weights are in memory: digest, names of its scores."""

    digest: str
    scores: tuple[str, ...]


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
    ) -> Sequence[Sequence[TextScores]]:
        """Score the texts of each prepared picture; their numbers may differ, and may be 0."""
        ...
