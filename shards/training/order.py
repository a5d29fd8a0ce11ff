"""The order of training: which sample comes when, in whole numbers alone, before any is read.

Each source is an endless sequence of passes; an epoch takes the next stretch of each, and deals it
to lanes. A lane fills fixed rows of every global batch and belongs to one worker at a time, so the
order is the same for any number of workers. A lane's place is a count of samples, and what it has
still to give follows from that count: nothing else is kept for a restart.

Why not mosaicml-streaming or grain, which can be repeated as exactly: the one wants the data
rewritten into shards of its own, the other records that can be read in any order; here tars are
read in place, front to back.
"""

import bisect
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

LANES = 12
SHUFFLE = 1_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the order needs to know of a source: samples in each part, and passes in an epoch."""

    rows: tuple[int, ...]
    repeat: Fraction = Fraction(1)

    @property
    def total(self) -> int:
        """Samples in one pass."""
        return sum(self.rows)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of one part, side by side; the first has the number `first` in its source."""

    part: int
    rows: range
    first: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One sample's turn: the source, and its number in the source's endless sequence."""

    source: int
    number: int


def lanes_of(worker: int, workers: int, lanes: int = LANES) -> range:
    """Return a worker's lanes, side by side; ValueError unless all get as many."""
    if not 0 <= worker < workers:
        raise ValueError(f"worker {worker} of {workers}: expected 0 to {workers - 1}")
    if lanes % workers:
        fits = ", ".join(str(count) for count in range(1, lanes + 1) if lanes % count == 0)
        raise ValueError(
            f"{workers} workers cannot share {lanes} lanes evenly; take {fits} workers, or another "
            "number of lanes from the start of the training"
        )
    share = lanes // workers
    return range(worker * share, (worker + 1) * share)


class Order:
    """How the samples of all sources are dealt to lanes, epoch by epoch."""

    def __init__(
        self, sources: Sequence[Sizes], seed: int, lanes: int = LANES, shuffle: int = SHUFFLE
    ) -> None:
        """Take the sizes of the sources, in their order; ValueError for what cannot be dealt."""
        if lanes < 1 or shuffle < 1:
            raise ValueError(f"lanes and shuffle should be at least 1, found {lanes}, {shuffle}")
        if not sources:
            raise ValueError("no source to train on; name at least one")
        for number, sizes in enumerate(sources):
            if not sizes.rows or min(sizes.rows) < 1 or sizes.repeat <= 0:
                raise ValueError(
                    f"source {number}: expected samples in every part and a repeat above 0, found "
                    f"{len(sizes.rows)} parts with {sizes.total} samples, repeat {sizes.repeat}"
                )
        self.sources = tuple(sources)
        self.seed, self.lanes, self.shuffle = seed, lanes, shuffle
        self._totals = [sizes.total for sizes in sources]
        self._rate = sum((size.repeat * size.total for size in sources), Fraction(0))

    @property
    def rows_per_epoch(self) -> float:
        """Samples in an epoch, on average: those of single ones are whole numbers."""
        return float(self._rate)

    def rows_before(self, epoch: int) -> int:
        """Count the samples of all epochs before one."""
        return sum(self._begin(source, epoch) for source in range(len(self.sources)))

    def lane_rows_before(self, lane: int, epoch: int) -> int:
        """Count a lane's samples of all epochs before one: lanes differ by one at most."""
        return (self.rows_before(epoch) + self.lanes - 1 - lane) // self.lanes

    def epoch_of(self, lane: int, taken: int) -> int:
        """Return the epoch of a lane's next sample, after `taken` of them."""
        bound = math.ceil((self.lanes * (taken + 2) + len(self.sources)) / self._rate)
        starts = range(bound + 1)
        return bisect.bisect_right(starts, taken, key=lambda e: self.lane_rows_before(lane, e)) - 1

    def share(self, lane: int, epoch: int, source: int) -> range:
        """Return the numbers of a source's samples that an epoch has for a lane.

        The odd ones go on to where those before them ended, so that no lane falls behind.
        """
        begin = self._begin(source, epoch)
        # all samples of all epochs so far, and of the sources before this one, count as dealt one
        # by one, round and round: the next one is for lane `dealt % lanes`
        dealt = self.rows_before(epoch) + sum(
            self._begin(before, epoch + 1) - self._begin(before, epoch) for before in range(source)
        )
        each, odd = divmod(self._begin(source, epoch + 1) - begin, self.lanes)
        # the lane is at this position, from 0, after the one where the dealing stopped; those at
        # the first `odd` positions get one more. So after any number of samples n a lane has
        # floor(n / lanes), or one more: counts differ by one at most, whatever the sources' sizes.
        # How many a lane gets is dealt so; which ones is a block side by side, so that it reads
        # few parts.
        position = (lane - dealt) % self.lanes
        first = begin + position * each + min(position, odd)
        return range(first, first + each + (position < odd))

    def stretches(self, source: int, numbers: range) -> Iterator[Stretch]:
        """Yield where samples lie, by number: rows of parts, in ascending order of the numbers."""
        if not numbers:
            return
        total = self._totals[source]
        for around in range(numbers[0] // total, numbers[-1] // total + 1):
            first = around * total
            for part, rows in self._pass(source, around):
                skip = max(numbers.start - first, 0)
                kept = rows[skip : max(numbers.stop - first, 0)]
                if kept:
                    yield Stretch(part, kept, first + skip)
                first += len(rows)

    def pass_of(self, turn: Turn) -> int:
        """Count how many times the source was gone through before."""
        return turn.number // self._totals[turn.source]

    def _begin(self, source: int, epoch: int) -> int:
        """Return the number of an epoch's first sample: rounded down, so that epochs join."""
        return math.floor(epoch * self.sources[source].repeat * self._totals[source])

    def _pass(self, source: int, around: int) -> Iterator[tuple[int, range]]:
        """Yield all rows of a source once, as parts in a new order.

        It begins within a part and ends with that part's head, so that even where there is but one
        part, it is cut into lanes at other places each time.
        """
        rows = self.sources[source].rows
        rng = random.Random(f"{self.seed}/pass/{source}/{around}")
        parts = list(range(len(rows)))
        rng.shuffle(parts)
        cut = rng.randrange(rows[parts[0]])
        yield parts[0], range(cut, rows[parts[0]])
        for part in parts[1:]:
            yield part, range(rows[part])
        if cut:
            yield parts[0], range(cut)


class LaneEpoch:
    """What one lane gives in an epoch, turn by turn.

    The sources come in at random, each as likely as it has samples left, so that all are used up
    together; of those that came in, up to `shuffle` wait, and any of them may be next.
    """

    def __init__(self, order: Order, lane: int, epoch: int, taken: int = 0) -> None:
        """Begin after the first `taken` turns; those are drawn again, 2 µs each."""
        self._rng = random.Random(f"{order.seed}/lane/{lane}/{epoch}")
        self.shares = [order.share(lane, epoch, source) for source in range(len(order.sources))]
        self._arrived = [0] * len(self.shares)
        self._to_arrive = sum(map(len, self.shares))
        self._waiting = [self._arrive() for _ in range(min(order.shuffle, self._to_arrive))]
        for _ in range(taken):
            self.draw()

    def __len__(self) -> int:
        """Count the turns to come."""
        return self._to_arrive + len(self._waiting)

    def draw(self) -> Turn:
        """Return the next turn; IndexError after the last."""
        if not self._waiting:
            raise IndexError("the lane has given all samples of the epoch")
        slot = self._rng.randrange(len(self._waiting))
        turn = self._waiting[slot]
        last = self._arrive() if self._to_arrive else self._waiting.pop()
        if slot < len(self._waiting):
            self._waiting[slot] = last
        return turn

    def to_come(self, source: int) -> tuple[frozenset[int], range]:
        """Return the numbers still to come of a source: those waiting, and those behind them."""
        waiting = frozenset(turn.number for turn in self._waiting if turn.source == source)
        return waiting, self.shares[source][self._arrived[source] :]

    def _arrive(self) -> Turn:
        pick = self._rng.randrange(self._to_arrive)
        self._to_arrive -= 1
        for source, share in enumerate(self.shares):
            left = len(share) - self._arrived[source]
            if pick < left:
                break
            pick -= left
        self._arrived[source] += 1
        return Turn(source, share[self._arrived[source] - 1])
