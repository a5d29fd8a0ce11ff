"""Nucleus sampling that gives a text the same words in whatever batch it is sampled.

Each draw is a race: every word c runs with speed p(c) / E(c), E exponential, and the fastest word
wins, which makes the winner a sample of p (the Gumbel-max trick). E is a pure function of the run's
seed, the text's name, the step and the word. So a draw changes only where the two fastest words are
closer than the rounding of p, whatever the size of the vocabulary. An inverse distribution function
would pass the rounding of every earlier word on to the later ones.

Shapes: N texts, C vocabulary.
"""

import hashlib
import math
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


def step_streams(seeds: Sequence[int], steps: int) -> Tensor:
    """Name the numbers that each step of each text draws: int64 (N, steps), on the CPU."""
    names = [[_hash(f"{seed}/{step}") for step in range(steps)] for seed in seeds]
    return torch.tensor(names, dtype=torch.long).view(len(seeds), steps)


def exponentials(streams: Tensor, size: int) -> Tensor:
    """Draw (N, size) float64 numbers of the exponential distribution, by SplitMix64.

    `streams` (N, 1) are one step's names.
    """
    state = torch.arange(1, size + 1, device=streams.device) * _GOLDEN
    bits = streams + state  # wraps around, as it should
    for shift, factor in _MIX:
        bits = (bits ^ _shift(bits, shift)).mul_(factor)
    bits = bits ^ _shift(bits, _LAST_SHIFT)
    uniform = (_shift(bits, 64 - _BITS).double() + 0.5) * 2.0**-_BITS  # in (0, 1)
    return uniform.log_().neg_()


def nucleus(
    probabilities: Tensor, race: Tensor, top_p: float, rounds: int | None = None
) -> tuple[Tensor, Tensor]:
    """Draw a word for each row from the fewest words that hold `top_p` of the mass.

    A word is in the nucleus if the words above it hold less than `top_p`. The winner of the race
    among all words is drawn first; if it is outside, all words as improbable are out of the race.
    This draws from the nucleus without sorting the vocabulary.

    Returns the words (N,), and which rows (N,) have none yet after so many `rounds`. None looks
    after each round whether another is needed, for which the host waits.
    """
    speed = probabilities.double() / race
    done = 0
    while True:
        pick = speed.argmax(dim=-1, keepdim=True)
        level = probabilities.gather(-1, pick)
        higher = torch.where(probabilities > level, probabilities, 0)
        above = higher.sum(-1, keepdim=True, dtype=torch.float64)
        outside = above >= top_p
        done += 1
        if done == rounds or (rounds is None and not outside.any()):
            return pick.squeeze(-1), outside.squeeze(-1)
        speed.masked_fill_(outside & (probabilities <= level), 0)


def enough_rounds(top_p: float, missed: float = 1e-8) -> int:
    """Count the rounds after which a share `missed` of all rows has no word yet.

    The mass above each round's winner is a uniform share of that above the last one: it falls below
    `top_p` as soon as a Poisson process would have counted as many events in log(1 / top_p).
    """
    mean = -math.log(top_p)
    term = math.exp(-mean)
    left, rounds = 1 - term, 1
    while left > missed:
        term *= mean / rounds
        left, rounds = left - term, rounds + 1
    return rounds


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
