"""Feature extraction: states and unit vectors of images, texts, and texts with an image in sight.

Shapes: N texts or images, T tokens, P image states, V their width, D text width, E projection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from models.blip import framing
from models.blip.config import TORCH_DTYPES, Dtype, resolve_dtype
from models.blip.networks import MatchNetwork
from models.blip.tokenizer import normalise
from models.checkpoints import checkpoint
from models.checkpoints.roles import FeatureNetwork


@dataclass(frozen=True, slots=True)
class Features:
    """States of an input, and what its first state is projected to.

    `states`: (N, T, D) of texts, (N, P, V) of images; `mask`: (N, T), False on pads, whose states
    mean nothing; `unit`: fp32 vectors (N, E) of length 1, None for texts with an image in sight and
    from a network that has no projections.
    """

    states: Tensor
    mask: Tensor
    unit: Tensor | None


class FeatureExtractor:
    """A loaded model, read for its states; they do not depend on the batch."""

    def __init__(self, loaded: checkpoint.Checkpoint, max_tokens: int, dtype: Dtype) -> None:
        """Prepare a loaded checkpoint; ValueError if the token limit does not fit the network."""
        assert isinstance(loaded.network, MatchNetwork | FeatureNetwork)
        described, words = loaded.description, loaded.description.tokenizer
        positions = described.config.text_config.max_position_embeddings
        framing.check_max_tokens(max_tokens, positions, str(described.folder))
        self.digest, self.preprocess = loaded.digest, described.preprocess
        self._network, self._words = loaded.network, words
        self._most, self._dtype = max_tokens, dtype
        with_enc = described.settings.itm_first_token == "enc"
        self._grounded_first = words.enc_id if with_enc else words.cls_id

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        role: Literal["filter", "features"] = "filter",
        max_tokens: int = 35,
        dtype: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | torch.device = "cpu",
    ) -> "FeatureExtractor":
        """Load a retrieval checkpoint, or one without heads; `max_tokens` counts special tokens."""
        resolved = resolve_dtype(dtype, device)
        loaded = checkpoint.load(Path(folder), role, dtype=resolved, device=device)
        return cls(loaded, max_tokens, resolved)

    @torch.inference_mode()
    def image(self, images: Tensor) -> Features:
        """Read images: uint8 (N, 3, H, W), resized by `preprocess`."""
        states = self._look(images)
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        network = self._network
        unit = network.image_features(states) if isinstance(network, MatchNetwork) else None
        return Features(states, mask, unit)

    @torch.inference_mode()
    def text(self, texts: Sequence[str]) -> Features:
        """Read texts alone."""
        framed = self._frame(texts, self._words.cls_id)
        network = self._network
        states = network.text_encoder.encode(framed.ids, framed.mask)
        unit = network.unit_text(states) if isinstance(network, MatchNetwork) else None
        return Features(states, framed.mask, unit)

    @torch.inference_mode()
    def multimodal(self, images: Tensor, texts: Sequence[str]) -> Features:
        """Read each text with its image in sight."""
        framed = self._frame(texts, self._grounded_first)
        states = self._network.text_encoder.encode(framed.ids, framed.mask, self._look(images))
        return Features(states, framed.mask, None)

    def _look(self, images: Tensor) -> Tensor:
        dtype = TORCH_DTYPES[self._dtype]
        return framing.encode_images(self._network.vision_model, self.preprocess, images, dtype)

    def _frame(self, texts: Sequence[str], first_id: int) -> framing.TokenBatch:
        pieces = self._words.encode([normalise(text) for text in texts])
        device = self._network.text_encoder.embeddings.word_embeddings.weight.device
        return framing.tokenize_batch(pieces, self._words, first_id, self._most, device)
