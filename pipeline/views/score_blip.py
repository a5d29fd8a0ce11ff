"""BLIP's filter as a scorer of texts that are there: itm, itm_logit and itc."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from models.roles.filter import Filter

SCORES = ("itm", "itm_logit", "itc")


@dataclass(frozen=True, slots=True)
class BlipScores:
    """The scores of one text, in the order of SCORES."""

    values: tuple[float, ...]


class BlipScorer:
    """A loaded filter, with its scores under their names."""

    scores = SCORES

    def __init__(self, role: "Filter") -> None:
        self._role, self.digest = role, role.digest

    def prepare(self, picture: "Image.Image") -> "Tensor":
        """Resize a picture as the filter takes it."""
        return self._role.preprocess.resize(picture)

    def score(
        self, batch: "Sequence[Tensor]", texts: Sequence[Sequence[str]]
    ) -> list[list[BlipScores]]:
        """Score the texts of each prepared picture."""
        import torch

        return [
            [BlipScores((score.itm, score.itm_logit, score.itc)) for score in scores]
            for scores in self._role.score(torch.stack(list(batch)), texts)
        ]
