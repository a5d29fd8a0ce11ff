"""Where a model looks for each word: maps of a match, or of a caption's tokens (BLIP §3.2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from models.blip import attention_maps as attention
from models.blip import framing
from models.blip.attention_maps import Maps
from models.blip.config import TORCH_DTYPES, Dtype, resolve_dtype
from models.blip.networks import CaptionNetwork, MatchNetwork
from models.blip.tokenizer import normalise
from models.checkpoints import checkpoint

Kind = Literal["gradcam", "original", "attention"]
"""Grad-CAM by heads; place by place, as BLIP's authors draw it; or where words look, as it is."""

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


class AttentionExplainer:
    """A loaded filter or captioner that shows where it looks."""

    def __init__(
        self, loaded: checkpoint.Checkpoint, dtype: Dtype, max_tokens: int | None = None
    ) -> None:
        """Prepare a loaded checkpoint; `max_tokens` of a text that is matched, special ones too."""
        described, words = loaded.description, loaded.description.tokenizer
        self.digest, self.preprocess = loaded.digest, described.preprocess
        self._network, self._words, self._dtype = loaded.network, words, dtype
        positions = described.config.text_config.max_position_embeddings
        self._most = positions if max_tokens is None else max_tokens
        framing.check_max_tokens(self._most, positions, str(described.folder))
        self.layers = described.config.text_config.num_hidden_layers
        patch = described.config.vision_config.patch_size
        self._grid = (self.preprocess.height // patch, self.preprocess.width // patch)
        with_enc = described.settings.itm_first_token == "enc"
        self._itm_first = words.enc_id if with_enc else words.cls_id

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        role: Literal["filter", "captioner"] = "filter",
        dtype: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | torch.device = "cpu",
        max_tokens: int | None = None,
    ) -> "AttentionExplainer":
        """Load a retrieval or captioning checkpoint from a local folder."""
        resolved = resolve_dtype(dtype, device)
        loaded = checkpoint.load(Path(folder), role, dtype=resolved, device=device)
        return cls(loaded, resolved, max_tokens)

    def match(
        self, image: Tensor, text: str, *, layer: int | None = None, kind: Kind = "gradcam"
    ) -> WordMaps:
        """Show where a filter looks for the words of a text: what raises the match's logit.

        `image`: uint8 (3, H, W), resized by `preprocess`; `layer`: by default the middle one.
        """
        assert isinstance(self._network, MatchNetwork)
        pieces = self._words.encode([normalise(text)])[0][: self._most - framing.FRAME]
        states = self._look(image)
        framed = framing.tokenize_batch(
            [pieces], self._words, self._itm_first, self._most, states.device
        )
        maps = attention.match_maps(self._network, framed.ids, framed.mask, states)
        found = self._map(maps, framed.mask, layer, kind)[1:-1]
        return self._gather(pieces, found, maps.scores[0, 1].item(), layer)

    @torch.inference_mode()
    def effects(self, image: Tensor, text: str) -> WordEffects:
        """Judge a match as it is, and with each word of its text hidden in turn from all others.

        A hidden word keeps its place, so that the others are read as before. `image` as for
        `match`; words are those of its maps. Effects do not add up: words are read together.
        """
        assert isinstance(self._network, MatchNetwork)
        pieces = self._words.encode([normalise(text)])[0][: self._most - framing.FRAME]
        words, counts = self._named(pieces)
        states = self._look(image)
        framed = framing.tokenize_batch(
            [pieces], self._words, self._itm_first, self._most, states.device
        )
        masks = framed.mask.repeat(1 + len(words), 1)  # the whole text, then without each word
        first = 1
        for row, count in enumerate(counts, 1):
            masks[row, first : first + count] = False
            first += count
        found: list[Tensor] = []
        for part in masks.split(_TEXTS_AT_ONCE):
            ids, own = framed.ids.expand(len(part), -1), states.expand(len(part), -1, -1)
            found.append(self._network.match_logits(ids, part, own, None))
        both = torch.cat(found).float()
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
        assert isinstance(self._network, CaptionNetwork)
        start, pieces = self._words.encode([prompt, text])
        start = [self._words.dec_id, *start]
        pieces = pieces[: max(self._most - len(start), 0)]
        states = self._look(image)
        ids = torch.tensor([[*start, *pieces]], device=states.device)
        if not pieces:
            return self._gather([], states.new_zeros(0, *self._grid), 0.0, layer)
        maps = attention.caption_maps(self._network, ids, states)
        found = self._map(maps, torch.ones_like(ids[:, 1:], dtype=torch.bool), layer, kind)
        score = maps.scores[0, -len(pieces) :].mean().item()
        return self._gather(pieces, found[-len(pieces) :], score, layer)

    @torch.no_grad()
    def _look(self, image: Tensor) -> Tensor:
        assert isinstance(self._network, MatchNetwork | CaptionNetwork)
        dtype = TORCH_DTYPES[self._dtype]
        return framing.encode_images(
            self._network.vision_model, self.preprocess, image[None], dtype
        )

    def _map(self, maps: Maps, mask: Tensor, layer: int | None, kind: Kind) -> Tensor:
        chances = maps.probabilities[self._layer(layer)]
        if kind == "attention":
            return attention.attention_map(chances, mask, self._grid)[0]
        weigh = attention.grad_cam if kind == "gradcam" else attention.original_cam
        return weigh(chances, maps.gradients[self._layer(layer)], mask, self._grid)[0]

    def _layer(self, layer: int | None) -> int:
        """Name the layer: by default the seventh of 12, as LAVIS has it, or what is like it.

        Not the last: of a match, only the first token's state goes on from there.
        """
        if layer is None:
            return max(min(self.layers // 2, self.layers - 2), 0)
        if not 0 <= layer < self.layers:
            raise ValueError(f"layer is {layer}; the network has 0 to {self.layers - 1}")
        return layer

    def _named(self, pieces: list[int]) -> tuple[list[str], list[int]]:
        """Bring the pieces of a word together, and count them."""
        words: list[str] = []
        counts: list[int] = []
        for token in self._words.decode([[piece] for piece in pieces]):
            if token.startswith(_PIECE) and words:
                words[-1] += token.removeprefix(_PIECE)
                counts[-1] += 1
            else:
                words.append(token or _UNKNOWN)
                counts.append(1)
        return words, counts

    def _gather(self, pieces: list[int], maps: Tensor, score: float, layer: int | None) -> WordMaps:
        words, counts = self._named(pieces)
        found = attention.over_pieces(maps, counts) if counts else maps
        mean = maps.mean(0) if counts else maps.new_zeros(self._grid)
        return WordMaps(words, found.cpu(), mean.cpu(), score, self._layer(layer))
