"""BLIP's filter as a scorer: the probability of a match, its logit, and the cosine."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from models.blip.config import DtypeChoice
from models.checkpoints import checkpoint
from models.checkpoints.description import describe
from models.checkpoints.locate import pin, resolve
from models.guests.picture import Prepared, as_pixels
from models.roles.filter import Filter
from models.scorers.config import BlipScorerConfig
from models.scorers.scorer import Scored, ScorerInfo


def check(config: BlipScorerConfig) -> ScorerInfo:
    """Check a filter, all of its files; CheckpointError says what is wrong with it."""
    pinned = pin(config.model, config.revision)
    described = describe(pinned.folder, "filter")
    described.check_max_tokens(config.max_tokens)
    info = checkpoint.info(described)
    there = config.model_copy(update={"model": pinned.name, "revision": pinned.revision})
    about = dataclasses.asdict(info)
    return ScorerInfo(info.digest, there, Filter.scores, info.parameters, about)


class BlipScorer:
    """A loaded filter, with its scores under their names."""

    scores = Filter.scores

    def __init__(self, role: Filter) -> None:
        self.role, self.digest, self.preprocess = role, role.digest, role.preprocess
        self.prepare_key = repr(role.preprocess)
        self.count_tokens = role.count_tokens

    @classmethod
    def load(
        cls, config: BlipScorerConfig, *, dtype: DtypeChoice, device: str | torch.device
    ) -> Self:
        """Load the filter that a recipe names."""
        folder = resolve(config.model, config.revision)
        return cls(Filter.load(folder, max_tokens=config.max_tokens, dtype=dtype, device=device))

    def prepare(self, picture: Image.Image) -> Prepared:
        """Resize a picture as the filter takes it."""
        made = self.role.preprocess.resize(picture.convert("RGB"))
        return Prepared(made, made.nbytes)

    def score(
        self, batch: Sequence[Prepared] | Tensor, texts: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Scored]]:
        """Score the texts of each picture: prepared ones, or uint8 (B, 3, H, W)."""
        if not len(batch):
            return []
        return self.role.score(as_pixels(batch), texts)
