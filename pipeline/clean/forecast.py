"""What a whole cleaning will take, from blocks of it that were cleaned: values with 90% intervals.

The arithmetic alone. A block is a small shard of the samples that follow a byte drawn at random. So
places of large pictures are drawn more often than their pictures are many, and each block stands
for so many samples as lie in its share of the bytes (Hansen and Hurwitz). A number of the whole is
a function of all blocks; leaving out each in turn says how far chance moves it (the jackknife), and
Student's t how wide that makes the interval. Machines are faster at one time than at another, which
blocks of one minute cannot tell: times are given some more room for that.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, fmean, median

CONFIDENCE = 0.90
DRIFT = 0.12  # standard deviation of a machine's speed between a sample and a run, as a share
EDGES = 0.02  # the same of counts: excerpts begin and end at samples, not at any byte
START_DRIFT = 0.15  # of a start's and an end's seconds, seen once
ENOUGH_OF_A_PLACE = 16  # samples: of more, half or less of the doubt is about the place itself
MOST_BIAS = 0.5  # that is taken off the density of a block
LEAST_BLOCKS = 4  # with a time; fewer say nothing of their own scatter
_EXACT_SCHEDULE = 10_000  # shards; with more, the last ones hardly matter


@dataclass(frozen=True, slots=True)
class Block:
    """What came of one small shard: a worker's first one has no `seconds`, being slower.

    `input_bytes` is what its samples take in their tar, `scatter` the squared coefficient of
    variation of one's bytes; `output_bytes` what it wrote, by table.
    """

    samples: int
    input_bytes: int
    kept: int = 0
    rejected: int = 0
    seconds: float | None = None
    output_bytes: Mapping[str, int] = field(default_factory=dict)
    scatter: float = 0.0

    @property
    def density(self) -> float:
        """Samples per byte where it was drawn; few samples of uneven sizes look denser."""
        bias = min(self.scatter / self.samples, MOST_BIAS)
        return self.samples / max(self.input_bytes, 1) * (1 - bias)  # empty files have none


@dataclass(frozen=True, slots=True)
class Whole:
    """What is to be done: the bytes of the samples in each shard, and how many workers do it."""

    shard_bytes: Sequence[float]
    workers: int
    start_s: float = 0.0  # until the first worker works, and from the last shard to the end

    @property
    def size_bytes(self) -> float:
        """The bytes of all shards."""
        return math.fsum(self.shard_bytes)


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, and the bounds that hold the truth in nine of ten cases."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval, as a share of the value."""
        return (self.high - self.low) / 2 / self.value if self.value else 0.0

    def times(self, factor: float) -> "Interval":
        """Return the interval of a multiple."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


Blocks = Sequence[Block]
Estimate = Callable[[Blocks], float]


def samples_of(blocks: Blocks, whole: Whole) -> Interval:
    """Forecast how many samples the whole has."""
    counts = _interval(blocks, lambda some: _samples(weigh(some, whole)), drift=EDGES)
    counts = _unseen(blocks, whole, counts)
    seen = sum(block.samples for block in blocks)
    return Interval(max(counts.value, seen), max(counts.low, seen), max(counts.high, seen))


def share_of(blocks: Blocks, whole: Whole, count: Callable[[Block], int]) -> Interval:
    """Forecast a share of all samples."""

    def estimate(some: Blocks) -> float:
        weighed = weigh(some, whole)
        return math.fsum(weight * count(b) for b, weight in weighed) / _samples(weighed)

    share = _interval(blocks, estimate)
    low, high = _of_so_many(share.value, sum(block.samples for block in blocks))
    wider = Interval(share.value, min(share.low, low), max(share.high, high))
    share = _unseen(blocks, whole, wider)
    return Interval(share.value, max(share.low, 0.0), min(share.high, 1.0))


def work_seconds(blocks: Blocks, whole: Whole) -> Interval:
    """Forecast the time that all workers together take, from the first shard to the last."""
    uneven = unevenness(whole)
    seconds = _in_all(blocks, whole, lambda block: block.seconds, DRIFT)
    return seconds.times(uneven / whole.workers)


def table_bytes(blocks: Blocks, whole: Whole, table: str) -> Interval:
    """Forecast the size of all files of one table."""
    return _in_all(blocks, whole, lambda block: block.output_bytes.get(table, 0))


def weigh(blocks: Blocks, whole: Whole) -> list[tuple[Block, float]]:
    """Say for how many samples each one of a block stands: for itself, and for unseen ones."""
    unseen = max(whole.size_bytes - sum(block.input_bytes for block in blocks), 0.0)
    # a larger block knows its place better, but no other places: of the bytes each has its part
    parts = [block.samples / (block.samples + ENOUGH_OF_A_PLACE) for block in blocks]
    each = unseen / math.fsum(parts)
    return [
        (block, 1 + each * part * block.density / block.samples)
        for block, part in zip(blocks, parts, strict=True)
    ]


def run_seconds(work: Interval, whole: Whole) -> Interval:
    """Forecast the time of the whole command: its work, its start and its end."""
    room = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * START_DRIFT * whole.start_s
    half = math.hypot((work.high - work.low) / 2, room)
    seconds = work.value + whole.start_s
    return Interval(seconds, max(seconds - half, 0.0), seconds + half)


def cost_of_a_shard(points: Sequence[tuple[float, float]]) -> float:
    """Return what y is where x is 0, not below 0, by the line of Theil and Sen.

    Medians, since a neighbour on the machine makes some shards take several times as long.
    """
    slopes = [
        (y - other_y) / (x - other_x)
        for (x, y), (other_x, other_y) in itertools.combinations(points, 2)
        if x != other_x
    ]
    if not slopes or (slope := median(slopes)) <= 0:
        return 0.0
    return max(median(y - slope * x for x, y in points), 0.0)


def unevenness(whole: Whole) -> float:
    """How many times longer the work takes than if it could be divided at will among workers.

    Shards are handed out in order, each to the worker that is free first.
    """
    shards, workers = whole.shard_bytes, whole.workers
    if workers == 1 or len(shards) > _EXACT_SCHEDULE or not whole.size_bytes:
        return 1.0
    ends = [0.0] * workers
    for size_bytes in shards:
        heapq.heapreplace(ends, ends[0] + size_bytes)
    return max(ends) * workers / whole.size_bytes


def students_t(share: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution, by its expansion (Abramowitz 26.7.5)."""
    z = NormalDist().inv_cdf(share)
    if freedom == 1:
        return math.tan(math.pi * (share - 0.5))
    if freedom == 2:
        return (2 * share - 1) * math.sqrt(2 / (4 * share * (1 - share)))
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def _interval(
    blocks: Blocks, estimate: Estimate, counted: Blocks | None = None, drift: float = 0.0
) -> Interval:
    """Estimate from all blocks, and from all but each; `counted` blocks are degrees of freedom."""
    value = estimate(blocks)
    number = len(blocks if counted is None else counted)
    if number < 2:
        return Interval(value, 0.0, math.inf)
    others = [estimate([*blocks[:left], *blocks[left + 1 :]]) for left in range(len(blocks))]
    mean = fmean(others)
    variance = (len(blocks) - 1) * fmean((other - mean) ** 2 for other in others)
    share = (1 + CONFIDENCE) / 2
    by_chance = students_t(share, number - 1) * math.sqrt(variance)
    half = math.hypot(by_chance, NormalDist().inv_cdf(share) * drift * value)
    return Interval(value, max(value - half, 0.0), value + half)


def _of_so_many(share: float, count: int) -> tuple[float, float]:
    """Bound a share that so many samples show (Wilson): none of a few is not none at all."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return (centre - half) / (1 + z * z / count), (centre + half) / (1 + z * z / count)


def _unseen(blocks: Blocks, whole: Whole, interval: Interval) -> Interval:
    """Narrow an interval of what the input holds: what the blocks have seen of it is known."""
    seen = sum(block.input_bytes for block in blocks) / max(whole.size_bytes, 1.0)
    spread = math.sqrt(max(1 - seen, 0.0))
    below, above = interval.value - interval.low, interval.high - interval.value
    if not spread:
        return Interval(interval.value, interval.value, interval.value)
    return Interval(
        interval.value, interval.value - below * spread, interval.value + above * spread
    )


def _samples(weighed: Sequence[tuple[Block, float]]) -> float:
    return math.fsum(block.samples * weight for block, weight in weighed)


def _in_all(
    blocks: Blocks, whole: Whole, of: Callable[[Block], float | None], drift: float = 0.0
) -> Interval:
    """Forecast what all shards cost, each and by their samples, as the blocks that know it say."""
    known = [block for block in blocks if of(block) is not None]
    points = [(block.samples, of(block) or 0) for block in known]
    # of a few blocks, chance may put all of the cost into the shards and none into the samples
    each = cost_of_a_shard(points) if len(points) >= LEAST_BLOCKS else 0.0

    def estimate(some: Blocks) -> float:
        weighed = weigh(some, whole)
        costs = [(b, weight, cost) for b, weight in weighed if (cost := of(b)) is not None]
        beyond = math.fsum(weight * (cost - each) for _, weight, cost in costs)
        samples = math.fsum(weight * b.samples for b, weight, _ in costs)
        rate = max(beyond, 0.0) / max(samples, 1e-9)
        return each * len(whole.shard_bytes) + rate * _samples(weighed)

    return _interval(blocks, estimate, known, drift)
