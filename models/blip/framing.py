"""What the roles feed a network of texts: rows of ids.

Shapes: N texts, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.blip.tokenizer import WordPiece

FRAME = 2  # tokens around a text: the first token and [SEP]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Texts as ids (N, T), and a mask (N, T) that is True on tokens and False on pads."""

    ids: Tensor
    mask: Tensor


def tokenize_batch(
    pieces: Sequence[Sequence[int]],
    words: WordPiece,
    first_id: int,
    max_tokens: int,
    device: torch.device,
) -> TokenBatch:
    """Cut texts to `max_tokens`, the first token and [SEP] included, and pad to the longest."""
    room = max_tokens - FRAME
    rows = [torch.tensor([first_id, *piece[:room], words.sep_id]) for piece in pieces]
    if not rows:
        ids = torch.zeros(0, FRAME, dtype=torch.long, device=device)
        return TokenBatch(ids, ids.bool())
    ids = torch.nn.utils.rnn.pad_sequence(rows, True, words.pad_id)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return TokenBatch(ids.to(device), mask.to(device))


def check_max_tokens(max_tokens: int, positions: int, what: str) -> None:
    """Raise ValueError if a token limit does not fit a network."""
    if not FRAME <= max_tokens <= positions:
        raise ValueError(f"max_tokens is {max_tokens}; {what} takes {FRAME} to {positions}")
