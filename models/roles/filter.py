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
from models.blip.text_layers import Slots, TextGroup
from models.blip.tokenizer import normalise
from models.checkpoints import checkpoint
from models.roles.role import LoadedModel, LoadOptions

# Pads that a second reading must save: the network's small operations cost as much as so many.
LEAST_SAVED = {"cpu": 256, "cuda": 4_096}
_CUTS = (12, 16, 24)  # lengths, special tokens included, at which short texts may end


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

    @property
    def values(self) -> tuple[float, float, float]:
        """Its scores, in the order of `Filter.scores`."""
        return self.itm, self.itm_logit, self.itc


class Filter(LoadedModel[MatchNetwork]):
    """A loaded filter; a score does not depend on the other images and texts of its batch."""

    network_types = (MatchNetwork,)
    scores: tuple[str, ...] = ("itm", "itm_logit", "itc")

    @classmethod
    def load(
        cls, folder: str | Path, *, max_tokens: int = 35, **options: Unpack[LoadOptions]
    ) -> Self:
        """Load a retrieval checkpoint from a local folder; `max_tokens` counts special tokens."""
        model = cls(checkpoint.load(folder, "filter", **options), max_tokens)
        model.only_read(options.get("dtype", "auto"))
        return model

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
        owners = [image for image, count in enumerate(counts) for _ in range(count)]
        lengths = [min(len(piece) + FRAME, self.max_tokens) for piece in pieces]
        parts = split_by_length(lengths, LEAST_SAVED[states.device.type])
        groups = []
        for part in parts:
            framed = self.frame([pieces[text] for text in part], self.tokenizer.cls_id)
            slots = slots_of([owners[text] for text in part], len(counts), states.device)
            groups.append(TextGroup(framed.ids, framed.mask, slots))
        features = torch.cat([network.text_features(group.ids, group.mask) for group in groups])
        order = torch.tensor([text for part in parts for text in part], device=states.device)
        owner = torch.tensor(owners, device=states.device)[order]
        cosines = (network.image_features(states)[owner] * features).sum(-1)
        for group in groups:  # ITM reads the same texts behind its own first token
            group.ids[:, 0] = self.first_id
        logits = network.match_groups(groups, states)
        back = order.argsort()
        return logits[back], cosines[back]


def split_by_length(lengths: Sequence[int], least_saved: int) -> list[list[int]]:
    """Part long texts from short ones if that saves so many pads; each part keeps its order."""
    longest = max(lengths)

    def saved(cut: int) -> int:
        return (longest - cut) * sum(length <= cut for length in lengths)

    cut = max(_CUTS, key=saved)
    if longest <= cut or saved(cut) < least_saved:
        return [list(range(len(lengths)))]
    short = [n for n, length in enumerate(lengths) if length <= cut]
    return [short, [n for n, length in enumerate(lengths) if length > cut]]


def slots_of(owners: Sequence[int], images: int, device: torch.device) -> Slots | None:
    """Place texts, in the order of their images; None if each image has as many."""
    counts = [0] * images
    within = []
    for owner in owners:
        within.append(counts[owner])
        counts[owner] += 1
    most = max(counts)
    if min(counts) == most:
        return None
    places = [owner * most + number for owner, number in zip(owners, within, strict=True)]
    return Slots(torch.tensor(places, device=device), images * most)
