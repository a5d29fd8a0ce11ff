"""BLIP's filter as a scorer: the probability of a match, its logit, and the cosine."""

from collections.abc import Sequence
from typing import Self

import torch
from PIL import Image

from models.blip.config import DtypeChoice
from models.checkpoints import checkpoint
from models.checkpoints.description import describe
from models.checkpoints.locate import resolve
from models.guests.picture import Prepared
from models.roles.filter import Filter
from models.scorers.config import BlipScorerConfig
from models.scorers.scorer import ScorerInfo, TextScores

SCORES = ("itm", "itm_logit", "itc")


def check(config: BlipScorerConfig) -> ScorerInfo:
    """Check a filter, all of its files; CheckpointError says what is wrong with it."""
    described = describe(resolve(config.model, config.revision), "filter")
    described.check_max_tokens(config.max_tokens)
    return ScorerInfo(checkpoint.info(described).digest, SCORES)


class BlipScorer:
    """A loaded filter, with its scores under their names."""

    scores: tuple[str, ...] = SCORES

    def __init__(self, role: Filter) -> None:
        self._role, self.digest = role, role.digest
        self.prepare_key = repr(role.preprocess)

    @classmethod
    def load(
        cls, config: BlipScorerConfig, *, dtype: DtypeChoice, device: str | torch.device
    ) -> Self:
        """Load the filter that a recipe names."""
        folder = resolve(config.model, config.revision)
        return cls(Filter.load(folder, max_tokens=config.max_tokens, dtype=dtype, device=device))

    def prepare(self, picture: Image.Image) -> Prepared:
        """Resize a picture as the filter takes it."""
        made = self._role.preprocess.resize(picture.convert("RGB"))
        return Prepared(made, made.nbytes)

    def score(
        self, batch: Sequence[Prepared], texts: Sequence[Sequence[str]]
    ) -> list[list[TextScores]]:
        """Score the texts of each prepared picture."""
        if not batch:
            return []
        images = torch.stack([prepared.content for prepared in batch])
        return [
            [
                TextScores((score.itm, score.itm_logit, score.itc), score.tokens, score.truncated)
                for score in group
            ]
            for group in self._role.score(images, texts)
        ]
