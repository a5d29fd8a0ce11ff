"""Excerpts of tars: a few samples out of the middle, found without reading what lies before.

A tar has no index, but each header says by its own checksum that it is one. So an excerpt begins
at any place at all, with the next sample that begins there, and is a tar by itself. Over a network
it costs no more than its own bytes.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from statistics import fmean, variance
from typing import BinaryIO, cast

from shards.inputs.front import Front
from shards.inputs.names import base_of, field_of
from shards.inputs.opening import open_samples
from shards.inputs.reader import RawSample
from shards.inputs.shard import InputShard
from shards.inputs.tars.grouping import MOST_HELD, Group, Grouper
from shards.inputs.tars.index import scan
from shards.inputs.tars.stream import GZIP_MAGIC, is_remote
from shards.inputs.tars.tar import BLOCK_BYTES, Member, TarDamage, TarReader, is_header
from shards.inputs.text import TXT, TextSource
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


@dataclass(frozen=True, slots=True)
class Span:
    """Whole samples as they stand, side by side: `tar` is their bytes, from `start` on.

    `starts` says where each begins in them; `incomplete` of them have no picture or no text.
    """

    start: int
    starts: tuple[int, ...]
    tar: bytes
    incomplete: int


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
    each, in random order. Gzip files, and tars whose members stand apart, are read from their
    beginning: `streams` and `scattered` name them. So are shards of other kinds, which are small.
    """

    def __init__(self, shards: Sequence[InputShard], seed: int, text: TextSource = TXT) -> None:
        self._text = text
        self._fronts = {s.shard: Front(_raws(s, text), text) for s in shards if s.kind != "tar"}
        self._checked: set[str] = set()
        self._gaps = [_Gap(shard, 0, shard.size_bytes) for shard in shards]
        self._random = random.Random(seed)
        self._sample_bytes = 0  # of those seen last
        self._paddings: dict[str, int] = {}
        self.barren: list[InputShard] = []  # shards in which no sample was found
        self.streams: list[InputShard] = []  # gzip files
        self.scattered: list[InputShard] = []  # tars whose members stand apart, and are joined
        self._doubtful: list[InputShard] = []  # in stores

    @property
    def apart(self) -> list[InputShard]:
        """List the streams in which members of a sample stand apart: each is a row of its own."""
        return [shard for shard in self.streams if self._fronts[shard.shard].is_apart]

    @property
    def doubtful(self) -> list[InputShard]:
        """List the shards, remote ones or streams, whose samples may have members elsewhere."""
        fronts = [(shard, self._fronts[shard.shard]) for shard in self.streams]
        lacking = [shard for shard, front in fronts if front.is_doubtful and not front.is_apart]
        return [*self._doubtful, *lacking]

    def content_bytes(self, shards: Sequence[InputShard]) -> list[float]:
        """Return what each shard holds before its padding, which is looked up where it matters.

        Of other shards that were not opened it is taken for the mean.
        """
        small = [s for s in shards if s.kind == "tar" and s.size_bytes < _SMALL_BYTES]
        for shard in small[:_MOST_LOOKED_UP]:
            with open_at(shard) as file:
                self._padding(file, shard)
        mean = sum(self._paddings.values()) / max(len(self._paddings), 1)
        padded = self._paddings | {s.shard: 0 for s in shards if s.kind != "tar"}
        paddings = (padded.get(shard.shard, mean) for shard in shards)
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
        if gap.shard.shard in self._fronts:
            return self._take(gap, number, samples)
        with open_at(gap.shard) as file:
            span = (
                None if self._has_front(gap.shard, file) else self._span(file, gap, offset, samples)
            )
            if span is not None and span.incomplete and self._is_apart(gap.shard, file, span):
                span = None
        if gap.shard.shard in self._fronts:
            return self._take(gap, number, samples)
        if span is None:
            if (gap.start, gap.end) == (0, gap.shard.size_bytes):
                self.barren.append(gap.shard)
            return None
        self._sample_bytes = max(len(span.tar) // len(span.starts), BLOCK_BYTES)
        behind = span.start + len(span.tar)
        rest = [_Gap(gap.shard, gap.start, span.start), _Gap(gap.shard, behind, gap.end)]
        self._gaps[number:number] = [part for part in rest if part.size_bytes > 0]
        return Excerpt(gap.shard, span.start, behind, span.starts, span.tar + END_MARKER)

    def _span(self, file: BinaryIO, gap: _Gap, offset: int, samples: int) -> Span | None:
        gap.end = min(gap.end, gap.shard.size_bytes - self._padding(file, gap.shard))
        cut = partial(cut_samples, file, end=gap.end, samples=samples, text=self._text)
        span = cut(start=gap.start + offset, begins=False) if offset else None
        return span or cut(start=gap.start, begins=True)

    def _has_front(self, shard: InputShard, file: BinaryIO) -> bool:
        """Check whether a shard is read from its beginning; gzip files are."""
        if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
            self._open_front(shard)
            self.streams.append(shard)
        return shard.shard in self._fronts

    def _is_apart(self, shard: InputShard, file: BinaryIO, span: Span) -> bool:
        """Look whether samples lack what stands elsewhere; in a store that would cost too much."""
        if is_remote(file):
            if span.incomplete > len(span.starts) / 2 and shard not in self._doubtful:
                self._doubtful.append(shard)
            return False
        if shard.shard not in self._checked:
            self._checked.add(shard.shard)
            if scan(file, shard.size_bytes, self._text) is not None:
                self._open_front(shard)
                self.scattered.append(shard)
        return shard.shard in self._fronts

    def _open_front(self, shard: InputShard) -> None:
        self._fronts[shard.shard] = Front(_raws(shard, self._text), self._text)

    def _take(self, gap: _Gap, number: int, samples: int) -> Excerpt | None:
        """Take the next samples of a shard that is read from its beginning."""
        front = self._fronts[gap.shard.shard]
        start = front.passed_bytes
        taken = front.take(samples, MOST_BYTES)
        if taken is None:
            if start == 0:
                self.barren.append(gap.shard)
            return None
        # those beside what was cut out of it before it was looked through are one now
        self._gaps = [other for other in self._gaps if other.shard != gap.shard]
        behind = front.passed_bytes
        rest = _Gap(gap.shard, behind, gap.shard.size_bytes)
        number = min(number, len(self._gaps))
        self._gaps[number:number] = [rest] if rest.size_bytes > 0 else []
        starts = (0, *accumulate(taken.sizes[:-1]))
        return Excerpt(gap.shard, start, behind, starts, taken.tar)

    def _padding(self, file: BinaryIO, shard: InputShard) -> int:
        if shard.shard not in self._paddings:
            self._paddings[shard.shard] = padding_of(file, shard.size_bytes)
        return self._paddings[shard.shard]


def _raws(shard: InputShard, text: TextSource) -> Iterator[RawSample]:
    with open_samples(shard, text) as reader:
        yield from reader


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
    file: BinaryIO, start: int, end: int, samples: int, *, begins: bool, text: TextSource = TXT
) -> Span | None:
    """Cut so many samples out of a tar, from the first that begins at `start` or later.

    `begins` says that one begins right there. Samples that begin at `end` or later are left. None
    where there is none, and from damage on.
    """
    header = start if begins else find_header(file, start, end)
    if header is None:
        return None
    file.seek(header)
    tape = _Tape(file)
    cut = _Cut(samples, text, begins)
    reader = TarReader(cast(BinaryIO, tape))
    try:
        for member in _members(reader, end - header):
            if cut.take(member) or (reader.bytes_read > MOST_BYTES and cut.edges):
                break
        else:
            cut.finish(reader.bytes_read)
    except TarDamage:  # what lies before it is whole
        pass
    if len(cut.edges) < 2:
        return None
    first, last = cut.edges[0], cut.edges[-1]
    starts = tuple(edge - first for edge in cut.edges[:-1])
    data = bytes(memoryview(tape.data)[first:last])
    return Span(header + first, starts, data, cut.incomplete)


class _Cut:
    """Finds where samples begin; `edges` are the places, and the end of the last whole one.

    Of what is not known to begin with a sample the first key is passed by, and the first member: it
    may lack the long name that stands before it.
    """

    def __init__(self, samples: int, text: TextSource, begins: bool) -> None:
        self._samples, self._text = samples, text
        self._grouper = Grouper(lambda _: b"", lambda _: False)
        self._passed_by: bytes | None = None
        self._to_pass = 0 if begins else MOST_HELD + 1  # groups of the first key, at most
        self._is_first = not begins
        self._starts: list[int] = []
        self.edges: list[int] = []
        self.incomplete = 0  # samples without a picture or a text

    def take(self, member: Member) -> bool:
        """Take the next member; return whether there are as many samples as wanted."""
        field = field_of(member.name, self._text.extension)
        is_first, self._is_first = self._is_first, False
        if field is None or member.kind == "directory" or is_first:
            return False
        if self._passed_by is None:
            self._passed_by = field.base
        for group in self._grouper.take(field, member):
            self._add(group)
        return self._close(self._grouper.begun)

    def finish(self, end: int) -> None:
        """Take the end for that of the last sample."""
        for group in self._grouper.finish():
            self._add(group)
        self._close(end)

    def _add(self, group: Group) -> None:
        if self._to_pass and base_of(group.key) == self._passed_by:
            self._to_pass -= 1
            return
        self._to_pass = 0
        if len(self._starts) <= self._samples:  # one more is the end of the last
            self._starts.append(group.begin)
            self.incomplete += not self._text.roles <= group.has

    def _close(self, end: int | None) -> bool:
        """Set the edges to what is whole, up to `end`."""
        if self._starts:
            ends = [] if len(self._starts) > self._samples or end is None else [end]
            self.edges = [*self._starts, *ends]
        return len(self.edges) > self._samples


def _members(reader: TarReader, end: int) -> Iterator[Member]:
    """Yield the members that begin before `end`, each read whole."""
    members = iter(reader)
    while reader.bytes_read < end and (member := next(members, None)):
        reader.read(member)
        yield member


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
