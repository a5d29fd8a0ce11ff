"""Natural language visual reasoning: is a statement about two images true (BLIP §5.4, NLVR2)?

Shapes: N statements, each with a left and a right image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.blip import framing
from models.blip.config import TORCH_DTYPES, Dtype, resolve_dtype
from models.blip.nlvr import NlvrNetwork
from models.blip.tokenizer import normalise
from models.checkpoints import checkpoint

_MOST_WORDS = 40


def nlvr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Take the mean cross-entropy of logits (N, 2); a label is 1 where the statement is true."""
    return F.cross_entropy(logits, labels)


class NlvrModel:
    """A loaded NLVR2 model; a result does not depend on the other statements of its batch."""

    def __init__(self, loaded: checkpoint.Checkpoint, max_tokens: int, dtype: Dtype) -> None:
        """Prepare a loaded checkpoint; ValueError if the token limit does not fit the network."""
        assert isinstance(loaded.network, NlvrNetwork)
        described, words = loaded.description, loaded.description.tokenizer
        positions = described.config.text_config.max_position_embeddings
        framing.check_max_tokens(max_tokens, positions, str(described.folder))
        self.digest, self.preprocess = loaded.digest, described.preprocess
        self.network, self._words = loaded.network, words
        self._most, self._dtype = max_tokens, dtype

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        max_tokens: int = 64,
        dtype: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | torch.device = "cpu",
    ) -> "NlvrModel":
        """Load an NLVR2 checkpoint; `max_tokens` counts special tokens.

        A statement begins with [ENC]: no library but the original holds this network.
        """
        resolved = resolve_dtype(dtype, device)
        loaded = checkpoint.load(Path(folder), "nlvr", dtype=resolved, device=device)
        return cls(loaded, max_tokens, resolved)

    @torch.inference_mode()
    def reason(self, left: Tensor, right: Tensor, statements: Sequence[str]) -> list[float]:
        """Give the probability that each statement is true of its two images.

        `left`, `right`: uint8 (N, 3, H, W), resized by `preprocess`.
        """
        if not statements:
            return []
        return self.logits(left, right, statements).softmax(-1)[:, 1].tolist()

    def logits(self, left: Tensor, right: Tensor, statements: Sequence[str]) -> Tensor:
        """Score statements: fp32 logits (N, 2), false and true."""
        states = framing.encode_images(
            self.network.vision_model,
            self.preprocess,
            torch.cat([left, right]),
            TORCH_DTYPES[self._dtype],
        )
        texts = [" ".join(normalise(text).split(" ")[:_MOST_WORDS]) for text in statements]
        pieces, first = self._words.encode(texts), self._words.enc_id
        framed = framing.tokenize_batch(pieces, self._words, first, self._most, states.device)
        return self.network(framed.ids, framed.mask, *states.split(len(left)))
