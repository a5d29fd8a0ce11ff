"""Excerpts of tars: a few samples out of the middle, found without reading what lies before.

A tar has no index, but each header says by its own checksum that it is one. So an excerpt begins
at any place at all, with the next sample that begins there, and is a tar by itself. Over a network
it costs no more than its own bytes.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import BinaryIO, cast

from shards.inputs.listing import InputShard
from shards.inputs.names import split_name
from shards.inputs.tar import BLOCK_BYTES, TarDamage, TarReader, is_header
from shards.store import filesystem

END_MARKER = bytes(2 * BLOCK_BYTES)
MOST_BYTES = 256 << 20  # that an excerpt holds in memory; with one sample it may be more
_TAIL_BYTES = 20 * BLOCK_BYTES + len(END_MARKER)  # tar fills up to 20 blocks
_SEARCHED_BYTES = 64 << 20  # for a header; a member that is larger is passed by
_CHUNK_BLOCKS = 128
_SMALL_BYTES, _MOST_LOOKED_UP = 1 << 20, 1_000  # tars of which up to a hundredth or more is padding


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Consecutive samples of a shard: the bytes from `start` to `end`, as a tar.

    `starts` says where each sample begins, counted from `start`.
    """

    shard: InputShard
    start: int
    end: int
    starts: tuple[int, ...]
    tar: bytes

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.starts)

    @property
    def scatter(self) -> float:
        """The squared coefficient of variation of a sample's bytes; 0 for one alone."""
        ends = (*self.starts[1:], self.size_bytes)
        sizes = [end - start for start, end in zip(self.starts, ends, strict=True)]
        return variance(sizes) / fmean(sizes) ** 2 if len(sizes) > 1 else 0.0

    @property
    def size_bytes(self) -> int:
        """The bytes that its samples take in their shard."""
        return self.end - self.start


@dataclass(slots=True)
class _Gap:
    """Bytes of a shard that no excerpt has taken yet; a sample begins at `start`."""

    shard: InputShard
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


class Excerpts:
    """Draws excerpts at random from a list of shards, none of which overlap.

    The list is taken as one line of bytes, and as many parts of it as excerpts are wanted get one
    each, in random order.
    """

    def __init__(self, shards: Sequence[InputShard], seed: int) -> None:
        self._gaps = [_Gap(shard, 0, shard.size_bytes) for shard in shards]
        self._random = random.Random(seed)
        self._sample_bytes = 0  # of those seen last
        self._paddings: dict[str, int] = {}
        self.barren: list[InputShard] = []  # shards in which no sample was found

    def content_bytes(self, shards: Sequence[InputShard]) -> list[float]:
        """Return what each shard holds before its padding, which is looked up where it matters.

        Of other shards that were not opened it is taken for the mean.
        """
        small = [shard for shard in shards if shard.size_bytes < _SMALL_BYTES]
        for shard in small[:_MOST_LOOKED_UP]:
            with open_at(shard) as file:
                self._padding(file, shard)
        mean = sum(self._paddings.values()) / max(len(self._paddings), 1)
        paddings = (self._paddings.get(shard.url, mean) for shard in shards)
        sizes = zip(shards, paddings, strict=True)
        return [max(shard.size_bytes - padding, 0.0) for shard, padding in sizes]

    def draw(self, sizes: Sequence[int]) -> Iterator[Excerpt]:
        """Draw an excerpt of each number of samples; fewer where nothing is left."""
        parts = list(range(len(sizes)))
        self._random.shuffle(parts)
        for part, samples in zip(parts, sizes, strict=True):
            excerpt = self._draw_at((part + self._random.random()) / len(sizes), samples)
            if excerpt is not None:
                yield excerpt

    def _draw_at(self, share: float, samples: int) -> Excerpt | None:
        """Draw from the gap that holds this share of all that is left, or from the next one."""
        position = share * sum(gap.size_bytes for gap in self._gaps)
        while self._gaps:
            number, offset = self._locate(position)
            gap = self._gaps[number]
            latest = max(gap.size_bytes - samples * self._sample_bytes, 0)
            excerpt = self._cut(number, min(int(offset), latest), samples)
            if excerpt is not None:
                return excerpt
        return None

    def _locate(self, position: float) -> tuple[int, float]:
        for number, gap in enumerate(self._gaps):
            if position < gap.size_bytes:
                return number, position
            position -= gap.size_bytes
        return 0, 0.0  # what was left at first is gone by now

    def _cut(self, number: int, offset: int, samples: int) -> Excerpt | None:
        """Take an excerpt out of a gap; one that gives none is left out from now on."""
        gap = self._gaps.pop(number)
        with open_at(gap.shard) as file:
            end = min(gap.end, gap.shard.size_bytes - self._padding(file, gap.shard))
            span = offset and cut_samples(file, gap.start + offset, end, samples, begins=False)
            span = span or cut_samples(file, gap.start, end, samples, begins=True)
        if not span:
            if (gap.start, gap.end) == (0, gap.shard.size_bytes):
                self.barren.append(gap.shard)
            return None
        start, starts, data = span
        self._sample_bytes = max(len(data) // len(starts), BLOCK_BYTES)
        behind = start + len(data)
        rest = [_Gap(gap.shard, gap.start, start), _Gap(gap.shard, behind, end)]
        self._gaps[number:number] = [part for part in rest if part.size_bytes > 0]
        return Excerpt(gap.shard, start, behind, starts, data + END_MARKER)

    def _padding(self, file: BinaryIO, shard: InputShard) -> int:
        if shard.url not in self._paddings:
            self._paddings[shard.url] = padding_of(file, shard.size_bytes)
        return self._paddings[shard.url]


def open_at(shard: InputShard) -> BinaryIO:
    """Open a shard to be read here and there."""
    fs, path = filesystem(shard.url)
    return cast(BinaryIO, fs.open(path, "rb"))


def padding_of(file: BinaryIO, size_bytes: int) -> int:
    """Count the zero blocks at the end of a tar, as far as tar writes them."""
    file.seek(max(size_bytes - _TAIL_BYTES, 0))
    tail = file.read(_TAIL_BYTES)
    zeros = len(tail) - len(tail.rstrip(b"\0"))
    return zeros // BLOCK_BYTES * BLOCK_BYTES


def cut_samples(
    file: BinaryIO, start: int, end: int, samples: int, *, begins: bool
) -> tuple[int, tuple[int, ...], bytes] | None:
    """Cut so many samples out of a tar, from the first that begins at `start` or later.

    `begins` says that one begins right there. Returns the place, where each begins from there on,
    and the bytes; samples that begin at `end` or later are left. None where there is none, and
    from damage on.
    """
    header = start if begins else find_header(file, start, end)
    if header is None:
        return None
    file.seek(header)
    tape = _Tape(file)
    reader = TarReader(cast(BinaryIO, tape))
    edges = [0] if begins else []  # where whole samples begin, and the last one ends
    last_key, read = None, 0
    try:
        for name, offset, behind in _members(reader, end - header):
            key = split_name(name)[0]
            if last_key is not None and key != last_key:
                edges.append(offset)
                if len(edges) > samples or offset > MOST_BYTES:
                    break
            # a header found in the middle may lack the long name that stands before it
            last_key, read = key if begins or offset else None, behind
        else:
            edges += [read] if edges and read > edges[-1] else []
    except TarDamage:  # what lies before it is whole
        pass
    if len(edges) < 2:
        return None
    first, last = edges[0], edges[-1]
    starts = tuple(edge - first for edge in edges[:-1])
    return header + first, starts, bytes(memoryview(tape.data)[first:last])


def _members(reader: TarReader, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield each member's name, where its headers begin, and where it ends."""
    members = iter(reader)
    while (offset := reader.bytes_read) < end and (member := next(members, None)):
        reader.read(member)
        yield member.name, offset, reader.bytes_read


def find_header(file: BinaryIO, start: int, end: int) -> int | None:
    """Find the first header of a member at `start` or later."""
    at = -(-start // BLOCK_BYTES) * BLOCK_BYTES
    file.seek(at)
    stop = min(end, at + _SEARCHED_BYTES)
    while at < stop:
        chunk = file.read(min(_CHUNK_BLOCKS * BLOCK_BYTES, stop - at))
        if not chunk:
            return None
        for offset in range(0, len(chunk), BLOCK_BYTES):
            if is_header(chunk[offset : offset + BLOCK_BYTES]):
                return at + offset
        at += len(chunk)
    return None


class _Tape:
    """A file of which all that is read is kept."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.data = file, bytearray()

    def read(self, size_bytes: int) -> bytes:
        data = self._file.read(size_bytes)
        self.data += data
        return data
