"""The stream of training: lanes of samples in the order that `order` fixes, one text to each image.

It reads ahead of a lane's turn no further than the order asks for, and holds at most `shuffle`
samples of each lane. One text of an image is drawn for each turn, so that two captions of an image
never meet in a batch as each other's negatives. Why no library's stream: see `order`.
"""

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction

from shards.training.annotation import SourceText
from shards.training.order import LANES, SHUFFLE, LaneEpoch, Order, Sizes, Stretch, Turn
from shards.training.source import Part, Source, SourceSample
from shards.training.source_reader import read_part


@dataclass(frozen=True, slots=True)
class Example:
    """One image with the text drawn for it, out of `texts`; `key` is SHARD/KEY.

    `seed` (63 bits) is for what else is drawn about it, and another one each time that it comes;
    `image_id` (63 bits) is equal where the bytes of the images are. A statement is about the image
    and the one on its `right`.
    """

    source: int
    key: str
    image: bytes
    chosen: SourceText
    epoch: int
    seed: int
    image_id: int
    texts: tuple[str, ...] = ()
    right: bytes | None = None

    @property
    def text(self) -> str:
        """The text that was drawn."""
        return self.chosen.text


class TrainingStream:
    """Endless lanes of examples, the same for any number of workers; for one thread.

    `mine` are the lanes to read (default: all). `positions`, samples taken so far by lane, are all
    that it takes to go on from where an earlier stream was (none: from the start).
    """

    def __init__(
        self,
        sources: Sequence[Source],
        seed: int,
        lanes: int = LANES,
        shuffle: int = SHUFFLE,
        mine: range | None = None,
        positions: Mapping[int, int] | None = None,
    ) -> None:
        sizes = [
            Sizes(tuple(part.rows for part in source.parts), Fraction(str(source.repeat)))
            for source in sources
        ]
        order = Order(sizes, seed, lanes, shuffle)
        lanes_here = range(lanes) if mine is None else mine
        if not set(lanes_here) <= set(range(lanes)):
            raise ValueError(f"lanes {lanes_here} are not among 0 to {lanes - 1}")
        if positions and (missing := set(lanes_here) - positions.keys()):
            raise ValueError(
                f"no position is given of lanes {sorted(missing)} (of {lanes}); a restart needs "
                "those of all workers' lanes, and as many lanes as the training began with"
            )
        self._order = order
        self._lanes = {
            lane: _Lane(sources, order, lane, (positions or {}).get(lane, 0)) for lane in lanes_here
        }

    @property
    def lanes(self) -> tuple[int, ...]:
        """The lanes that can be read here, ascending."""
        return tuple(sorted(self._lanes))

    @property
    def rows_per_epoch(self) -> float:
        """Samples in an epoch, in all lanes of all workers; whole unless a `repeat` is not."""
        return self._order.rows_per_epoch

    @property
    def positions(self) -> dict[int, int]:
        """Samples taken so far, by lane."""
        return {number: lane.taken for number, lane in self._lanes.items()}

    def epochs_at(self, positions: Mapping[int, int]) -> float:
        """Compute how many epochs are done, going by how far these lanes are on average."""
        taken = sum(positions.values()) / len(positions)
        return taken * self._order.lanes / self.rows_per_epoch

    def rows_of_lane(self, lane: int, epoch: int) -> int:
        """Count the samples that an epoch has for a lane."""
        before = self._order.lane_rows_before
        return before(lane, epoch + 1) - before(lane, epoch)

    def next_of(self, lane: int) -> Example:
        """Take the next example of a lane; raises what reading a source raises."""
        return self._lanes[lane].next()

    def close(self) -> None:
        """Close the files that are open."""
        for lane in self._lanes.values():
            lane.close()


class _Lane:
    """One lane: its order, and what it reads of each source."""

    def __init__(self, sources: Sequence[Source], order: Order, number: int, taken: int) -> None:
        self._sources, self._order, self._number = sources, order, number
        self.taken = taken
        self._readers: list[_Reader] = []
        self._enter(order.epoch_of(number, taken))

    def next(self) -> Example:
        if not self._turns:
            self._enter(self._order.epoch_of(self._number, self.taken))
        turn = self._turns.draw()
        sample = self._readers[turn.source].take(turn.number)
        self.taken += 1
        return self._example(turn, sample)

    def close(self) -> None:
        for reader in self._readers:
            reader.close()

    def _enter(self, epoch: int) -> None:
        self.close()
        # a restart redraws the turns of this epoch that were taken, which needs no sample; only
        # what is still to come is read again
        done = self.taken - self._order.lane_rows_before(self._number, epoch)
        self._epoch = epoch
        self._turns = LaneEpoch(self._order, self._number, epoch, done)
        self._readers = [
            _Reader(source, self._order.stretches(number, share), *self._turns.to_come(number))
            for number, (source, share) in enumerate(
                zip(self._sources, self._turns.shares, strict=True)
            )
        ]

    def _example(self, turn: Turn, sample: SourceSample) -> Example:
        turn_name = f"{self._epoch}/{turn.source}/{self._order.pass_of(turn)}/{sample.key}"
        drawn = hashlib.blake2b(f"{self._order.seed}/{turn_name}".encode(), digest_size=16).digest()
        chosen = sample.texts[int.from_bytes(drawn[8:]) % len(sample.texts)]
        return Example(
            source=turn.source,
            key=sample.key,
            image=sample.image,
            chosen=chosen,
            epoch=self._epoch,
            seed=int.from_bytes(drawn[:8]) >> 1,
            image_id=int.from_bytes(hashlib.blake2b(sample.image, digest_size=8).digest()) >> 1,
            texts=tuple(text.text for text in sample.texts),
            right=sample.right,
        )


class _Reader:
    """Reads one source's share of a lane in order, and holds what was read before its turn."""

    def __init__(
        self, source: Source, stretches: Iterator[Stretch], waiting: frozenset[int], behind: range
    ) -> None:
        self._ahead = _read(source, stretches, waiting, behind)
        self._held: dict[int, SourceSample] = {}

    def take(self, number: int) -> SourceSample:
        # read in ascending order, taken at random. What comes before it in the source has arrived,
        # too, so it was taken or is among the `shuffle` turns that wait: no more is ever held
        while number not in self._held:
            read_number, sample = next(self._ahead)
            self._held[read_number] = sample
        return self._held.pop(number)

    def close(self) -> None:
        self._held.clear()
        self._ahead.close()


def _read(
    source: Source, stretches: Iterator[Stretch], waiting: frozenset[int], behind: range
) -> Generator[tuple[int, SourceSample], None, None]:
    """Yield the samples that are still to come, with their numbers; other parts stay closed."""
    for stretch in stretches:
        # by row in the part: the sample's number in the source's endless sequence
        wanted = {
            number - stretch.first + stretch.rows.start: number
            for number in range(stretch.first, stretch.first + len(stretch.rows))
            if number in waiting or number in behind
        }
        if wanted:
            yield from _read_rows(source.parts[stretch.part], wanted)


def _read_rows(part: Part, wanted: dict[int, int]) -> Iterator[tuple[int, SourceSample]]:
    """Yield the wanted rows of a part under their numbers."""
    last = max(wanted)
    with closing(read_part(part)) as samples:
        for row, sample in enumerate(samples):
            if row == part.rows - 1:
                next(samples, None)  # at its end, a part is checked as a whole
            if row in wanted:
                yield wanted[row], sample
            if row == last:
                return
