"""Forecasts against simulated runs, whose truth is known, and against other people's arithmetic."""

import random
from statistics import fmean

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from pipeline.clean.forecast import (
    DRIFT,
    Block,
    Interval,
    Whole,
    cost_of_a_shard,
    run_seconds,
    samples_of,
    share_of,
    students_t,
    table_bytes,
    unevenness,
    work_seconds,
)


class World:
    """Shards of samples of uneven sizes, and a machine that is not always as fast.

    Each shard comes from another source, whose pictures are larger or smaller, take longer, and are
    kept more often, by their size.
    """

    def __init__(self, seed: int, workers: int = 1) -> None:
        self.rng = rng = random.Random(seed)
        self.workers = workers
        typical = rng.uniform(5_000, 200_000)
        self.each_s, self.sample_s = rng.uniform(0, 0.3), rng.uniform(0.002, 1.0)
        self.shards, self.sources = [], []
        for _ in range(rng.randint(20, 60)):
            source = rng.lognormvariate(0, 0.5)
            self.sources.append(source)
            count = rng.randint(200, 800)
            sizes = [rng.lognormvariate(0, 0.6) * source * typical for _ in range(count)]
            self.shards.append(sizes)
        self.sizes = [sum(shard) for shard in self.shards]

    def seconds_of(self, shard: int, samples: int, scatter: float) -> float:
        took = self.each_s + samples * self.sample_s * (1 + 0.2 * self.sources[shard])
        return took * self.rng.lognormvariate(0, scatter)

    def kept_of(self, shard: int) -> float:
        """The share that is kept."""
        return min(0.9, 0.4 * self.sources[shard])

    def block(self, samples: int, place: float) -> Block:
        """Clean the samples that follow a byte, somewhere from 0 to 1 in all of them."""
        at = place * sum(self.sizes)
        shard = int(np.searchsorted(np.cumsum(self.sizes), at, "right"))
        pictures = self.shards[shard]
        (first,) = self.rng.choices(range(len(pictures)), pictures)
        chosen = pictures[first + 1 : first + 1 + samples] or pictures[:samples]
        kept = sum(self.rng.random() < self.kept_of(shard) for _ in chosen)
        scatter = float(np.var(chosen, ddof=1) / np.mean(chosen) ** 2) if len(chosen) > 1 else 0.0
        tables = {"texts": 4_000 + 90 * len(chosen)}
        seconds = self.seconds_of(shard, len(chosen), 0.1)
        return Block(len(chosen), int(sum(chosen)), kept, 0, seconds, tables, scatter)

    @property
    def blocks(self) -> list[Block]:
        """Small shards of one batch or four, one from each part of all bytes."""
        sizes = [16, 16, 64] * 10
        parts = self.rng.sample(range(len(sizes)), len(sizes))
        return [
            self.block(samples, (part + self.rng.random()) / len(sizes))
            for samples, part in zip(sizes, parts, strict=True)
        ]

    @property
    def whole(self) -> Whole:
        return Whole(self.sizes, self.workers)

    @property
    def kept(self) -> float:
        kept = sum(self.kept_of(n) * len(shard) for n, shard in enumerate(self.shards))
        return kept / self.samples

    @property
    def samples(self) -> int:
        return sum(map(len, self.shards))

    @property
    def seconds(self) -> float:
        """Of the run, at another time, each shard by who is free first."""
        ends = [0.0] * self.workers
        for number, shard in enumerate(self.shards):
            ends[ends.index(min(ends))] += self.seconds_of(number, len(shard), 0.03)
        return max(ends) * self.rng.gauss(1, DRIFT)


def covered(truths: list[float], intervals: list[Interval]) -> float:
    return fmean(i.low <= t <= i.high for t, i in zip(truths, intervals, strict=True))


@pytest.mark.parametrize("workers", [1, 4])
def test_nine_in_ten_simulated_runs_take_as_long_as_stated(workers: int) -> None:
    worlds = [World(seed, workers) for seed in range(200)]
    intervals = [work_seconds(world.blocks, world.whole) for world in worlds]
    assert 0.85 <= covered([world.seconds for world in worlds], intervals) <= 0.97
    assert np.median([i.half_width for i in intervals]) < 0.25


def test_nine_in_ten_simulated_inputs_hold_as_many_samples_as_stated() -> None:
    worlds = [World(seed) for seed in range(200)]
    intervals = [samples_of(world.blocks, world.whole) for world in worlds]
    assert 0.85 <= covered([world.samples for world in worlds], intervals) <= 0.98
    shares = [share_of(world.blocks, world.whole, lambda block: block.kept) for world in worlds]
    assert 0.85 <= covered([world.kept for world in worlds], shares) <= 0.98


def test_tables_have_a_size_each_and_one_a_row() -> None:
    world = World(3)
    whole = world.whole
    forecast = table_bytes(world.blocks, whole, "texts")
    truth = 4_000 * len(whole.shard_bytes) + 90 * world.samples
    assert forecast.low <= truth <= forecast.high
    assert table_bytes(world.blocks, whole, "clean").value == 0


def test_none_of_a_few_is_not_none_of_all() -> None:
    blocks = [Block(10, 1_000) for _ in range(4)]
    share = share_of(blocks, Whole([1e9], 1), lambda block: block.kept)
    assert share.value == share.low == 0
    assert share.high == pytest.approx(1.645**2 / (40 + 1.645**2), rel=1e-3)  # Wilson's bound
    all_kept = share_of([Block(10, 1_000, kept=10)] * 4, Whole([1e9], 1), lambda block: block.kept)
    assert all_kept.low == pytest.approx(1 - share.high, rel=1e-3)
    assert all_kept.high == 1


def test_few_blocks_do_not_part_a_shards_cost_from_its_samples() -> None:
    """Of three, by chance the smallest was the slowest: all of it would be the shards' own."""
    blocks = [Block(n, 100 * n, seconds=s) for n, s in ((10, 1.2), (12, 1.21), (14, 1.22))]
    forecast = work_seconds(blocks, Whole([1e6], 1))
    assert forecast.value == pytest.approx(1e4 * 3.63 / 36, rel=0.1)


def test_all_that_is_there_is_known_exactly() -> None:
    blocks = [Block(10, 1_000, 9), Block(10, 3_000, 1), Block(20, 2_000, 0)]
    whole = Whole([2_000, 4_000], 1)
    assert samples_of(blocks, whole) == Interval(40, 40, 40)
    assert share_of(blocks, whole, lambda block: block.kept) == Interval(0.25, 0.25, 0.25)


def test_one_block_says_nothing_of_its_error() -> None:
    interval = work_seconds([Block(16, 1_000, seconds=2.0)], Whole([10_000], 1))
    assert (interval.value, interval.low, interval.high) == (20.0, 0.0, float("inf"))


def test_a_shard_costs_what_the_line_of_theil_and_sen_says() -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(5, 70, 40).astype(float)
    y = 3 + 0.5 * x + rng.normal(0, 0.1, 40) * np.sqrt(x)
    y[:3] *= 5  # somebody else was at work
    points = list(zip(x, y, strict=True))
    slope = stats.theilslopes(y, x)[0]
    assert cost_of_a_shard(points) == pytest.approx(np.median(y - slope * x))
    assert cost_of_a_shard(points) == pytest.approx(3, abs=0.5)
    assert cost_of_a_shard([(10, 20), (10, 22)]) == 0  # of one size: no telling apart
    assert cost_of_a_shard([(10, 5), (20, 20)]) == 0  # none is below 0
    assert cost_of_a_shard([(10, 20), (20, 5)]) == 0


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 10, 30, 200])
def test_students_t(freedom: int) -> None:
    assert students_t(0.95, freedom) == pytest.approx(stats.t.ppf(0.95, freedom), rel=0.01)


def test_workers_wait_for_the_last_shard() -> None:
    assert unevenness(Whole([5.0] * 4, 4)) == 1
    assert unevenness(Whole([5.0] * 5, 4)) == 1.6
    assert unevenness(Whole([5.0] * 5, 1)) == 1


def test_a_start_is_added_with_its_own_doubt() -> None:
    seconds = run_seconds(Interval(100, 90, 110), Whole([1.0], 1, start_s=40))
    assert seconds.value == 140
    assert seconds.high - seconds.value == pytest.approx(14.05, abs=0.01)  # of 10 and 9.87
