"""The filter: scores how well texts match images (BLIP §3.2, ITM and ITC).

Shapes: B images, N texts over all images, T tokens, P image states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, Unpack

import torch
from torch import Tensor

from models.blip.framing import FRAME
from models.blip.networks import MatchNetwork
from models.blip.text_layers import Slots
from models.blip.tokenizer import normalise
from models.checkpoints import checkpoint
from models.roles.role import LoadedModel, LoadOptions


@dataclass(frozen=True, slots=True)
class Score:
    """How well a text matches its image.

    `itm`: probability of a match, in [0, 1]; `itm_logit`: logit of a match minus that of none;
    `itc`: cosine of image and text, in [-1, 1]; `tokens`: of the text, without special tokens,
    before it was cut; `truncated`: it was cut.
    """

    itm: float
    itm_logit: float
    itc: float
    tokens: int
    truncated: bool


class Filter(LoadedModel[MatchNetwork]):
    """A loaded filter; a score does not depend on the other images and texts of its batch."""

    network_types = (MatchNetwork,)

    @classmethod
    def load(
        cls, folder: str | Path, *, max_tokens: int = 35, **options: Unpack[LoadOptions]
    ) -> Self:
        """Load a retrieval checkpoint from a local folder; `max_tokens` counts special tokens."""
        return cls(checkpoint.load(folder, "filter", **options), max_tokens)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text, without special ones, before it is cut."""
        return len(self.tokenizer.encode([normalise(text)])[0])

    @torch.inference_mode()
    def score(self, images: Tensor, texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        """Score the texts of each image; their numbers may differ, and may be 0.

        `images`: uint8 (B, 3, H, W), resized by `preprocess`; `texts`: B lists, raw.
        """
        flat = [normalise(text) for group in texts for text in group]
        if not flat:
            return [[] for _ in texts]
        pieces = self.tokenizer.encode(flat)
        logits, cosines = self._run(images, pieces, [len(group) for group in texts])
        room = self.max_tokens - FRAME
        scores = (
            Score(itm, logit, itc, len(piece), len(piece) > room)
            for itm, logit, itc, piece in zip(
                logits.softmax(-1)[:, 1].tolist(),
                (logits[:, 1] - logits[:, 0]).tolist(),
                cosines.tolist(),
                pieces,
                strict=True,
            )
        )
        return [[next(scores) for _ in group] for group in texts]

    def _run(
        self, images: Tensor, pieces: list[list[int]], counts: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Compute fp32 ITM logits (N, 2) and ITC cosines (N,), `counts` texts for each image."""
        network, states = self.network, self.image_states(images)  # (B, P, V)
        framed = self.frame(pieces, self.tokenizer.cls_id)
        device, most = states.device, max(counts)
        owner = torch.repeat_interleave(torch.tensor(counts, device=device))  # (N,) image of a text
        places = [image * most + n for image, count in enumerate(counts) for n in range(count)]
        slots = Slots(torch.tensor(places, device=device), len(counts) * most)
        text_features = network.text_features(framed.ids, framed.mask)
        cosines = (network.image_features(states)[owner] * text_features).sum(-1)
        framed.ids[:, 0] = self.first_id  # ITM reads the same texts behind its own first token
        return network.match_logits(framed.ids, framed.mask, states, slots), cosines
