"""Feature extraction: states and unit vectors of images, texts, and texts with an image in sight.

Shapes: N texts or images, T tokens, P image states, V their width, D text width, E projection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, Unpack

import torch
from torch import Tensor

from models.blip.framing import TokenBatch
from models.blip.networks import FeatureNetwork, MatchNetwork
from models.blip.tokenizer import normalise
from models.checkpoints import checkpoint
from models.roles.role import LoadedModel, LoadOptions


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


class FeatureExtractor(LoadedModel[MatchNetwork | FeatureNetwork]):
    """A loaded model, read for its states; they do not depend on the batch."""

    network_types = (MatchNetwork, FeatureNetwork)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        role: Literal["filter", "features"] = "filter",
        max_tokens: int = 35,
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Load a retrieval checkpoint, or one without heads; `max_tokens` counts special tokens."""
        return cls(checkpoint.load(folder, role, **options), max_tokens)

    @torch.inference_mode()
    def image(self, images: Tensor) -> Features:
        """Read images: uint8 (N, 3, H, W), resized by `preprocess`."""
        states = self.image_states(images)
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        network = self.network
        unit = network.image_features(states) if isinstance(network, MatchNetwork) else None
        return Features(states, mask, unit)

    @torch.inference_mode()
    def text(self, texts: Sequence[str]) -> Features:
        """Read texts alone."""
        framed = self._tokenize(texts, self.tokenizer.cls_id)
        network = self.network
        states = network.text_encoder.encode(framed.ids, framed.mask)
        unit = network.unit_text(states) if isinstance(network, MatchNetwork) else None
        return Features(states, framed.mask, unit)

    @torch.inference_mode()
    def multimodal(self, images: Tensor, texts: Sequence[str]) -> Features:
        """Read each text with its image in sight."""
        framed = self._tokenize(texts, self.first_id)
        images = self.image_states(images)
        states = self.network.text_encoder.encode(framed.ids, framed.mask, images)
        return Features(states, framed.mask, None)

    def _tokenize(self, texts: Sequence[str], first_id: int) -> TokenBatch:
        return self.tokenize([normalise(text) for text in texts], first_id)
