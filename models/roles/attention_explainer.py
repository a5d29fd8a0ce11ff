"""Where a model looks for each word: maps of a match, or of a caption's tokens (BLIP §3.2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, Unpack

import torch
from torch import Tensor

from models.blip import attention_maps as attention
from models.blip.attention_maps import Maps
from models.blip.framing import FRAME, TokenBatch
from models.blip.networks import CaptionNetwork, MatchNetwork
from models.blip.tokenizer import WordPiece, normalise
from models.checkpoints import checkpoint
from models.checkpoints.checkpoint import Checkpoint
from models.checkpoints.locate import CheckpointError
from models.roles.role import LoadedModel, LoadOptions

Kind = Literal["gradcam", "original", "attention"]
"""Grad-CAM by heads; place by place, as BLIP's authors draw it; or plain attention."""

_PIECE = "##"
_TEXTS_AT_ONCE = 64
_UNKNOWN = "[UNK]"  # what no piece of the vocabulary spells


@dataclass(frozen=True, slots=True)
class WordMaps:
    """A map (rows, columns) of the image for each word, not negative, and their mean.

    `score`: logit of the match, or mean logit of the caption's tokens; `layer` counts from 0.
    """

    words: list[str]
    maps: Tensor
    mean: Tensor
    score: float
    layer: int


@dataclass(frozen=True, slots=True)
class WordEffects:
    """What each word adds to the logit of a match (match − mismatch); below 0, it speaks against.

    `itm` is the probability of the match, `itm_logit` its logit, of the whole text.
    """

    words: list[str]
    effects: list[float]
    itm: float
    itm_logit: float


class AttentionExplainer(LoadedModel[MatchNetwork | CaptionNetwork]):
    """A loaded filter or captioner that shows where it looks."""

    network_types = (MatchNetwork, CaptionNetwork)

    def __init__(self, loaded: Checkpoint, max_tokens: int | None = None) -> None:
        """Prepare a loaded checkpoint; `max_tokens` of a text that is matched, special ones too."""
        super().__init__(loaded, max_tokens)
        config = self.description.config
        self.layers: int = config.text_config.num_hidden_layers
        patch = config.vision_config.patch_size
        self._grid = (self.preprocess.height // patch, self.preprocess.width // patch)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        role: Literal["filter", "captioner"] = "filter",
        max_tokens: int | None = None,
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Load a retrieval or captioning checkpoint from a local folder."""
        return cls(checkpoint.load(folder, role, **options), max_tokens)

    def match(
        self, image: Tensor, text: str, *, layer: int | None = None, kind: Kind = "gradcam"
    ) -> WordMaps:
        """Show where a filter looks for the words of a text: what raises the match's logit.

        `image`: uint8 (3, H, W), resized by `preprocess`; `layer`: by default the middle one.
        """
        network, (pieces, framed) = self._matcher(), self._frame_match(text)
        maps = attention.match_maps(network, framed.ids, framed.mask, self._states(image))
        by_piece = self._map(maps, framed.mask, layer, kind)[1:-1]
        return self._gather(pieces, by_piece, maps.scores[0, 1].item(), layer)

    @torch.inference_mode()
    def effects(self, image: Tensor, text: str) -> WordEffects:
        """Judge a match as it is, and with each word of its text hidden in turn from all others.

        A hidden word keeps its place, so that the others are read as before. `image` as for
        `match`; words are those of its maps. Effects do not add up: words are read together.
        """
        network, (pieces, framed) = self._matcher(), self._frame_match(text)
        words, counts = _join_pieces(self.tokenizer, pieces)
        states = self._states(image)
        masks = framed.mask.repeat(1 + len(words), 1)  # the whole text, then without each word
        first = 1
        for row, count in enumerate(counts, 1):
            masks[row, first : first + count] = False
            first += count
        parts = [
            network.match_logits(
                framed.ids.expand(len(part), -1), part, states.expand(len(part), -1, -1), None
            )
            for part in masks.split(_TEXTS_AT_ONCE)
        ]
        both = torch.cat(parts).float()
        logits = both[:, 1] - both[:, 0]
        effects = (logits[0] - logits[1:]).tolist()
        return WordEffects(words, effects, both[0].softmax(-1)[1].item(), logits[0].item())

    def caption(
        self,
        image: Tensor,
        text: str,
        *,
        prompt: str = "a picture of ",
        layer: int | None = None,
        kind: Kind = "gradcam",
    ) -> WordMaps:
        """Show where a captioner looks when it writes each token of a text after its prompt.

        `image` and `layer` as for `match`.
        """
        if not isinstance(self.network, CaptionNetwork):
            raise CheckpointError(
                f"{self.description.folder} was loaded as a filter, which writes no captions; "
                'load a captioner, with role="captioner"'
            )
        prompt_ids, pieces = self.tokenizer.encode([prompt, text])
        start = [self.tokenizer.dec_id, *prompt_ids]
        pieces = pieces[: max(self.max_tokens - len(start), 0)]
        states = self._states(image)
        ids = torch.tensor([[*start, *pieces]], device=states.device)
        if not pieces:
            return self._gather([], states.new_zeros(0, *self._grid), 0.0, layer)
        maps = attention.caption_maps(self.network, ids, states)
        by_token = self._map(maps, torch.ones_like(ids[:, 1:], dtype=torch.bool), layer, kind)
        score = maps.scores[0, -len(pieces) :].mean().item()
        return self._gather(pieces, by_token[-len(pieces) :], score, layer)

    def _matcher(self) -> MatchNetwork:
        if not isinstance(self.network, MatchNetwork):
            raise CheckpointError(
                f"{self.description.folder} was loaded as a captioner, which matches nothing; "
                'load a filter, with role="filter"'
            )
        return self.network

    def _frame_match(self, text: str) -> tuple[list[int], TokenBatch]:
        pieces = self.tokenizer.encode([normalise(text)])[0][: self.max_tokens - FRAME]
        return pieces, self.frame([pieces], self.first_id)

    @torch.no_grad()
    def _states(self, image: Tensor) -> Tensor:
        return self.image_states(image[None])

    def _map(self, maps: Maps, mask: Tensor, layer: int | None, kind: Kind) -> Tensor:
        probabilities = maps.probabilities[self._layer(layer)]
        if kind == "attention":
            return attention.attention_map(probabilities, mask, self._grid)[0]
        weigh = attention.grad_cam if kind == "gradcam" else attention.original_cam
        return weigh(probabilities, maps.gradients[self._layer(layer)], mask, self._grid)[0]

    def _layer(self, layer: int | None) -> int:
        """Choose the layer: by default the seventh of 12, as LAVIS has it, or what is like it.

        Not the last: of a match, only the first token's state goes on from there.
        """
        if layer is None:
            return max(min(self.layers // 2, self.layers - 2), 0)
        if not 0 <= layer < self.layers:
            raise ValueError(f"layer is {layer}; the network has 0 to {self.layers - 1}")
        return layer

    def _gather(self, pieces: list[int], maps: Tensor, score: float, layer: int | None) -> WordMaps:
        words, counts = _join_pieces(self.tokenizer, pieces)
        by_word = attention.over_pieces(maps, counts) if counts else maps
        mean = maps.mean(0) if counts else maps.new_zeros(self._grid)
        return WordMaps(words, by_word.cpu(), mean.cpu(), score, self._layer(layer))


def _join_pieces(tokenizer: WordPiece, pieces: list[int]) -> tuple[list[str], list[int]]:
    """Bring the pieces of a word together, and count them."""
    words: list[str] = []
    counts: list[int] = []
    for token in tokenizer.decode([[piece] for piece in pieces]):
        if token.startswith(_PIECE) and words:
            words[-1] += token.removeprefix(_PIECE)
            counts[-1] += 1
        else:
            words.append(token or _UNKNOWN)
            counts.append(1)
    return words, counts
