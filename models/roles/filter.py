"""The filter: scores how well texts match images (BLIP §3.2, ITM and ITC).

Shapes: B images, N texts over all images, T tokens, P image states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from models.blip.config import TORCH_DTYPES, Dtype, resolve_dtype
from models.blip.networks import MatchNetwork
from models.blip.text import Slots
from models.blip.tokenizer import normalise
from models.checkpoints import checkpoint

_SPECIAL = 2  # the first token and [SEP]


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


class Filter:
    """A loaded filter; a score does not depend on the other images and texts of its batch."""

    def __init__(self, loaded: checkpoint.Checkpoint, max_tokens: int, dtype: Dtype) -> None:
        """Prepare a loaded checkpoint; ValueError if the token limit does not fit the network."""
        assert isinstance(loaded.network, MatchNetwork)
        described = loaded.description
        described.check_max_tokens(max_tokens)
        self.digest = loaded.digest
        self.preprocess = described.preprocess
        self._network = loaded.network
        self._words = described.tokenizer
        self._room, self._dtype = max_tokens - _SPECIAL, dtype
        with_enc = described.settings.itm_first_token == "enc"
        self._itm_first = self._words.enc_id if with_enc else self._words.cls_id

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        max_tokens: int = 35,
        dtype: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | torch.device = "cpu",
    ) -> "Filter":
        """Load a retrieval checkpoint from a local folder; `max_tokens` counts special tokens."""
        resolved = resolve_dtype(dtype, device)
        loaded = checkpoint.load(Path(folder), "filter", dtype=resolved, device=device)
        return cls(loaded, max_tokens, resolved)

    @torch.inference_mode()
    def score(self, images: Tensor, texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        """Score the texts of each image; their numbers may differ, and may be 0.

        `images`: uint8 (B, 3, H, W), resized by `preprocess`; `texts`: B lists, raw.
        """
        flat = [normalise(text) for group in texts for text in group]
        if not flat:
            return [[] for _ in texts]
        pieces = self._words.encode(flat)
        logits, cosines = self._run(images, pieces, [len(group) for group in texts])
        found = [
            Score(match, logit, cosine, len(piece), len(piece) > self._room)
            for match, logit, cosine, piece in zip(
                logits.softmax(-1)[:, 1].tolist(),
                (logits[:, 1] - logits[:, 0]).tolist(),
                cosines.tolist(),
                pieces,
                strict=True,
            )
        ]
        rest = iter(found)
        return [[next(rest) for _ in group] for group in texts]

    def _run(
        self, images: Tensor, pieces: list[list[int]], counts: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Compute fp32 ITM logits (N, 2) and ITC cosines (N,), `counts` texts for each image."""
        network = self._network
        device = next(network.parameters()).device
        pixels = self.preprocess.normalise(images.to(device), TORCH_DTYPES[self._dtype])
        states = network.vision_model(pixels)  # (B, P, V)
        ids, mask = self._pad(pieces, device)
        owner = torch.repeat_interleave(torch.tensor(counts, device=device))  # (N,) image of a text
        most = max(counts)
        places = [image * most + n for image, count in enumerate(counts) for n in range(count)]
        slots = Slots(torch.tensor(places, device=device), len(counts) * most)
        text_features = network.text_features(ids, mask)
        cosines = (network.image_features(states)[owner] * text_features).sum(-1)
        ids[:, 0] = self._itm_first
        return network.match_logits(ids, mask, states, slots), cosines

    def _pad(self, pieces: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
        """Cut, frame with [CLS] and [SEP], and pad to the longest: ids and mask (N, T)."""
        rows = [
            torch.tensor([self._words.cls_id, *piece[: self._room], self._words.sep_id])
            for piece in pieces
        ]
        ids = torch.nn.utils.rnn.pad_sequence(rows, True, self._words.pad_id)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return ids.to(device), mask.to(device)
