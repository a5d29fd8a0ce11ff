"""What the roles feed a network: texts as rows of ids, pictures and videos as rows of states.

Shapes: N texts, T tokens; B images or videos, F frames, P states of one picture, V their width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.blip.preprocess import Preprocess
from models.blip.tokenizer import WordPiece
from models.blip.vision import VisionTower

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


def encode_images(tower: VisionTower, preprocess: Preprocess, pictures: Tensor) -> Tensor:
    """Compute the states of images (B, 3, H, W) or videos (B, F, 3, H, W), uint8.

    The frames of a video stand one after the other, each with its class token: (B, F * P, V), as
    BLIP concatenates them (BLIP §5.6); F is 1 for an image.
    """
    frames = pictures.flatten(0, 1) if pictures.dim() == 5 else pictures
    weight = tower.post_layernorm.weight  # says on which device the tower is, and in which dtype
    states = tower(preprocess.normalise(frames.to(weight.device), weight.dtype))  # (B * F, P, V)
    return states.reshape(len(pictures), -1, states.shape[-1])


def check_max_tokens(max_tokens: int, positions: int, what: str) -> None:
    """Raise ValueError if a token limit does not fit a network."""
    if not FRAME <= max_tokens <= positions:
        raise ValueError(f"max_tokens is {max_tokens}; {what} takes {FRAME} to {positions}")
