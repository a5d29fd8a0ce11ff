"""Natural language visual reasoning: is a statement about two images true (BLIP §5.4, NLVR2)?

Shapes: N statements, each with a left and a right image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from models.blip.nlvr import NlvrNetwork
from models.blip.tokenizer import normalise
from models.checkpoints import checkpoint
from models.roles.role import LoadedModel, LoadOptions

_MOST_WORDS = 40


def nlvr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Take the mean cross-entropy of logits (N, 2); a label is 1 where the statement is true."""
    return F.cross_entropy(logits, labels)


class NlvrModel(LoadedModel[NlvrNetwork]):
    """A loaded NLVR2 model; a result does not depend on the other statements of its batch."""

    network_types = (NlvrNetwork,)

    @classmethod
    def load(
        cls, folder: str | Path, *, max_tokens: int = 64, **options: Unpack[LoadOptions]
    ) -> Self:
        """Load an NLVR2 checkpoint; `max_tokens` counts special tokens."""
        return cls(checkpoint.load(folder, "nlvr", **options), max_tokens)

    @torch.inference_mode()
    def reason(self, left: Tensor, right: Tensor, statements: Sequence[str]) -> list[float]:
        """Compute the probability that each statement is true of its two images.

        `left`, `right`: uint8 (N, 3, H, W), resized by `preprocess`.
        """
        if not statements:
            return []
        return self.logits(left, right, statements).softmax(-1)[:, 1].tolist()

    def logits(self, left: Tensor, right: Tensor, statements: Sequence[str]) -> Tensor:
        """Score statements: fp32 logits (N, 2), false and true."""
        states = self.image_states(torch.cat([left, right]))
        texts = [" ".join(normalise(text).split(" ")[:_MOST_WORDS]) for text in statements]
        # [ENC] whatever the settings say: no library but the original holds this network
        framed = self.tokenize(texts, self.tokenizer.enc_id)
        return self.network(framed.ids, framed.mask, *states.split(len(left)))
