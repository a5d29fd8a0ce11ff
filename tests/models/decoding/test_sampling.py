"""Sampling: the right distribution, and the same words in any company."""

import math

import pytest
import torch

from models.decoding import sampling
from models.decoding.sampling import (
    enough_rounds,
    exponentials,
    keep_top,
    nucleus,
    step_streams,
    text_seeds,
)


def race_of(seeds: list[int], step: int, size: int) -> torch.Tensor:
    """Draw the numbers of one step."""
    return exponentials(step_streams(seeds, step + 1)[:, step:], size)


def sorted_nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The plain way: sort, add up, keep until the mass is reached."""
    kept = torch.zeros_like(probabilities)
    for row, target in zip(probabilities, kept, strict=True):
        mass = 0.0
        for word in row.argsort(descending=True).tolist():
            if mass >= top_p:
                break
            target[word] = row[word]
            mass += row[word].item()
    return kept / kept.sum(-1, keepdim=True)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_draws_follow_the_sorted_nucleus(top_p: float) -> None:
    generator = torch.Generator().manual_seed(4)
    row = torch.randn(1, 12, generator=generator).mul(2).softmax(-1)
    draws = 20_000
    race = race_of(text_seeds(0, [str(n) for n in range(draws)], 1), 0, 12)
    picked, left = nucleus(row.expand(draws, -1), race, top_p)
    assert not left.any()
    found = torch.bincount(picked, minlength=12) / draws
    expected = sorted_nucleus(row, top_p)[0]
    assert (found[expected == 0] == 0).all()
    margin = 5 * (expected * (1 - expected) / draws).sqrt() + 1e-9
    assert ((found - expected).abs() <= margin).all()


def test_exponentials_are_exponential_and_independent() -> None:
    race = race_of(text_seeds(7, [str(n) for n in range(300)], 1), 3, 1000)
    assert race.min() > 0
    assert race.isfinite().all()
    assert race.mean().item() == pytest.approx(1, abs=0.01)
    assert race.var().item() == pytest.approx(1, abs=0.03)
    assert (race > math.log(2)).double().mean().item() == pytest.approx(0.5, abs=0.004)
    centred = race - 1
    assert abs((centred[:, 1:] * centred[:, :-1]).mean().item()) < 0.01  # next word
    assert abs((centred[1:] * centred[:-1]).mean().item()) < 0.01  # next text
    again = race_of(text_seeds(7, [str(n) for n in range(300)], 1), 4, 1000)
    assert abs((centred * (again - 1)).mean().item()) < 0.01  # next step


def test_streams_depend_on_seed_key_and_number_alone() -> None:
    seeds = text_seeds(1, ["a", "b"], 2)
    assert len(set(seeds)) == 4
    assert text_seeds(1, ["b"], 2) == seeds[2:]
    assert text_seeds(1, ["a"], 1) == seeds[:1]
    assert text_seeds(2, ["a"], 1) != seeds[:1]
    alone = race_of(seeds[2:3], 5, 40)
    assert torch.equal(alone, race_of(seeds, 5, 40)[2:3])


def test_splitmix64_gives_its_published_numbers() -> None:
    """The first outputs for seed 0, as integers of 53 bits."""
    state = torch.arange(1, 4) * sampling._GOLDEN
    for shift, factor in sampling._MIX:
        state = (state ^ sampling._shift(state, shift)) * factor
    state = state ^ sampling._shift(state, sampling._LAST_SHIFT)
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [number & (2**64 - 1) for number in state.tolist()] == known


def test_rounding_does_not_change_the_draw() -> None:
    """Noise as large as that of another batch shape must not turn into other words."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 3000, generator=generator) * 0.02  # nearly flat: the worst case
    noise = torch.randn(400, 3000, generator=generator) * 1e-6
    race = race_of(text_seeds(0, [str(n) for n in range(400)], 1), 0, 3000)
    first, _ = nucleus(logits.softmax(-1), race, 0.9)
    second, _ = nucleus((logits + noise).softmax(-1), race, 0.9)
    assert (first == second).all()


def test_not_a_number_ends() -> None:
    probabilities = torch.tensor([[0.5, 0.5], [math.nan, math.nan]])
    race = race_of([1, 2], 0, 2)
    assert nucleus(probabilities, race, 0.9)[0].shape == (2,)


def test_top_k_keeps_the_best() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    assert keep_top(scores, 2).isfinite().tolist() == [[False, True, True, False]]
    assert torch.equal(keep_top(scores, 0), scores)
    assert torch.equal(keep_top(scores, 9), scores)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.99, 1.0])
def test_so_many_rounds_draw_what_unlimited_ones_do(top_p: float) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(3000, 200, generator=generator).mul(2).softmax(-1)
    race = race_of(text_seeds(0, [str(n) for n in range(3000)], 1), 0, 200)
    expected, _ = nucleus(rows, race, top_p)
    found, left = nucleus(rows, race, top_p, enough_rounds(top_p))
    assert not left.any()
    assert torch.equal(found, expected)
    few, left = nucleus(rows, race, top_p, 1)
    assert torch.equal(few != expected, left)  # what has no word yet says so


@pytest.mark.parametrize("top_p", [0.3, 0.9])
def test_rounds_miss_the_share_that_they_say(top_p: float) -> None:
    rows = torch.ones(1500, 400) / 400  # ties are one level: slightly unequal instead
    rows = rows * (1 + torch.arange(400) * 1e-3)
    rows /= rows.sum(-1, keepdim=True)
    race = race_of(text_seeds(0, [str(n) for n in range(1500)], 1), 0, 400)
    for missed in (0.3, 0.05, 0.01):
        rounds = enough_rounds(top_p, missed)
        share = nucleus(rows, race, top_p, rounds)[1].double().mean().item()
        assert share <= missed + 4 * (missed / 1500) ** 0.5
        if rounds > 1:
            fewer = nucleus(rows, race, top_p, rounds - 1)[1].double().mean().item()
            assert fewer > missed - 4 * (missed / 1500) ** 0.5
