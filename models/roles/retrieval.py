"""Retrieval: ITC finds candidates among many, ITM puts them in order (BLIP §5.1).

Shapes: B images, N texts, T tokens, P image states, V their width, E projection width, K texts
of one image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, Unpack

import torch
from torch import Tensor

from models.blip import framing
from models.blip.config import Role
from models.blip.networks import MatchNetwork
from models.blip.tokenizer import normalise
from models.checkpoints import checkpoint
from models.checkpoints.description import describe
from models.roles.role import LoadedModel, LoadOptions

UNRANKED = -100.0  # the score of a pair outside the best k
TEXTS_AT_ONCE = 256  # of one image

RankRule = Literal["logit+cosine", "logit", "probability"]
Ranked = Callable[[int, int], None]
"""Called with how many images are ranked, and of how many."""


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """What a search needs of images: states (B, P, V) and fp32 unit vectors (B, E).

    The states may lie on the CPU while the network does not.
    """

    states: Tensor
    unit: Tensor


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """What a search needs of texts: ids and mask (N, T) and fp32 unit vectors (N, E)."""

    framed: framing.TokenBatch
    unit: Tensor


@dataclass(frozen=True, slots=True)
class RankedCandidates:
    """Scores (B, N) of each image's best k texts, and (N, B) of each text's best k images.

    `UNRANKED` where the cosine, of `cosines` (B, N), was not among the best.
    """

    cosines: Tensor
    to_text: Tensor
    to_image: Tensor


class Retriever(LoadedModel[MatchNetwork]):
    """A loaded retrieval model that searches; a score does not depend on the batch."""

    network_types = (MatchNetwork,)

    @classmethod
    def load(
        cls, folder: str | Path, *, max_tokens: int = 35, **options: Unpack[LoadOptions]
    ) -> Self:
        """Load a filter, or the match network that is part of a pre-training, from a local folder.

        `max_tokens` counts special tokens.
        """
        pretrained = describe(Path(folder)).role == "pretrain"
        role: Role = "pretrain" if pretrained else "filter"
        return cls(checkpoint.load(folder, role, **options), max_tokens)

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> EncodedImages:
        """Read images: uint8 (B, 3, H, W), resized by `preprocess`."""
        states = self.image_states(images)
        return EncodedImages(states, self.network.image_features(states))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        """Read texts alone."""
        framed = self.tokenize([normalise(text) for text in texts], self.tokenizer.cls_id)
        return EncodedTexts(framed, self.network.text_features(framed.ids, framed.mask))

    @torch.inference_mode()
    def rank(
        self,
        images: EncodedImages,
        texts: EncodedTexts,
        k: int = 256,
        rule: RankRule = "logit+cosine",
        ranked: Ranked | None = None,
    ) -> RankedCandidates:
        """Score the k pairs of each image, and of each text, whose cosines are the highest.

        `rule`: the logit of a match plus the cosine, as the original does, or the logit alone, or
        the probability of a match.
        """
        cosines = images.unit @ texts.unit.T  # (B, N)
        # ITM reads each pair anew: all B * N would take days where cosines take seconds (§5.1)
        by_image, by_text = _best(cosines, k), _best(cosines.T, k).T
        scores, device = torch.full_like(cosines, UNRANKED), cosines.device
        for number, chosen in enumerate(by_image | by_text):  # a pair of both is judged once
            states = images.states[number, None].to(device)
            for rows in chosen.nonzero().flatten().split(TEXTS_AT_ONCE):
                logits = self._match(states, texts.framed, rows)
                scores[number, rows] = _score(logits, cosines[number, rows], rule)
            if ranked is not None:
                ranked(number + 1, len(scores))
        to_text = scores.masked_fill(~by_image, UNRANKED)
        return RankedCandidates(cosines, to_text, scores.masked_fill_(~by_text, UNRANKED).T)

    def _match(self, states: Tensor, framed: framing.TokenBatch, rows: Tensor) -> Tensor:
        """Compute the ITM logits (K, 2) of one image with some texts."""
        if not len(rows):
            return states.new_zeros(0, 2)
        ids = framed.ids[rows]
        ids[:, 0] = self.first_id
        return self.network.match_logits(ids, framed.mask[rows], states, None)


def _score(logits: Tensor, cosines: Tensor, rule: RankRule) -> Tensor:
    """Put ITM logits (K, 2) and cosines (K,) into one number per pair."""
    if rule == "probability":
        return logits.softmax(-1)[:, 1]
    return logits[:, 1] + cosines if rule == "logit+cosine" else logits[:, 1]


def _best(cosines: Tensor, k: int) -> Tensor:
    """Mark the k highest of each row; of equal ones, the first."""
    best = torch.zeros_like(cosines, dtype=torch.bool)
    for row, marks in zip(cosines, best, strict=True):  # a whole order of all rows takes gigabytes
        marks[row.argsort(descending=True, stable=True)[:k]] = True
    return best
