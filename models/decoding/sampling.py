"""Nucleus sampling that gives a text the same words in whatever batch it is sampled.

Each draw is a race: every word c runs with speed p(c) / E(c), E exponential, and the fastest word
wins, which makes the winner a sample of p (the Gumbel-max trick). E is a pure function of the run's
seed, the text's name, the step and the word. So a draw changes only where the two fastest words are
closer than the rounding of p, whatever the size of the vocabulary. An inverse distribution function
would pass the rounding of every earlier word on to the later ones.

Shapes: N texts, C vocabulary.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, SplitMix64's increment, as a signed number
_MIX = ((30, -4658895280553007687), (27, -7723592293110705685))  # its two rounds
_LAST_SHIFT = 31
_BITS = 53


def text_seeds(seed: int, keys: Sequence[str], count: int) -> list[int]:
    """Name a stream of numbers for each of `count` texts of each key; text_no counts from 1."""
    return [_hash(f"{seed}/{number}/{key}") for key in keys for number in range(1, count + 1)]


def exponentials(seeds: Sequence[int], step: int, size: int, device: torch.device) -> Tensor:
    """Draw (N, size) float64 numbers of the exponential distribution, by SplitMix64."""
    starts = [_hash(f"{seed}/{step}") for seed in seeds]
    state = torch.arange(1, size + 1, device=device) * _GOLDEN
    bits = torch.tensor(starts, device=device)[:, None] + state  # wraps around, as it should
    for shift, factor in _MIX:
        bits = (bits ^ _shift(bits, shift)).mul_(factor)
    bits = bits ^ _shift(bits, _LAST_SHIFT)
    uniform = (_shift(bits, 64 - _BITS).double() + 0.5) * 2.0**-_BITS  # in (0, 1)
    return uniform.log_().neg_()


def nucleus(probabilities: Tensor, race: Tensor, top_p: float) -> Tensor:
    """Draw a word for each row from the fewest words that hold `top_p` of the mass: (N,).

    A word is in the nucleus if the words above it hold less than `top_p`. The winner of the race
    among all words is drawn first; if it is outside, all words as improbable are out of the race.
    This draws from the nucleus without sorting the vocabulary.
    """
    speed = probabilities.double() / race
    while True:
        pick = speed.argmax(dim=-1, keepdim=True)
        level = probabilities.gather(-1, pick)
        higher = torch.where(probabilities > level, probabilities, 0)
        above = higher.sum(-1, keepdim=True, dtype=torch.float64)
        outside = above >= top_p
        if not outside.any():
            return pick.squeeze(-1)
        speed.masked_fill_(outside & (probabilities <= level), 0)


def keep_top(scores: Tensor, top_k: int) -> Tensor:
    """Leave only the `top_k` best scores of each row (N, C) finite; 0 leaves all."""
    if top_k == 0 or top_k >= scores.shape[-1]:
        return scores
    lowest = scores.topk(top_k, dim=-1).values[:, -1:]
    return scores.masked_fill(scores < lowest, -torch.inf)


def _hash(name: str) -> int:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _shift(bits: Tensor, places: int) -> Tensor:
    """Shift right without copying the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
