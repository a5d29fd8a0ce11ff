"""Where members stand that belong together: an index of a tar's headers, without their contents.

A tar made by plain `tar -cf` has its members in the order of a folder's entries. Its headers alone
tell which belong to one sample, and where each stands. An index holds numbers only, some 25 bytes
for each member.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from shards.inputs.names import Field, field_of
from shards.inputs.tars.grouping import MOST_HELD, bounded_ending
from shards.inputs.tars.stream import RangeFile, is_remote
from shards.inputs.tars.tar import Member, TarDamage, TarReader
from shards.inputs.text import TextSource

_CUTS = ("truncated", "corrupt")
_ROLE_BITS = {"image": 1, "foreign": 1, "text": 2, "meta": 4}

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Index:
    """Where members begin: those of a sample side by side, samples in the order of their first.

    `ignored` counts fields beside a key's own, by ending. `cut` has the keys, hashed, that may have
    lost a member to the damage.
    """

    starts: Ints
    size_bytes: int  # of the members, those left out not
    ignored: Counter[str]
    damage: TarDamage | None
    has_end_marker: bool
    behind: int  # where the last member ended
    end: int
    cut: frozenset[int]


def scan(
    file: BinaryIO,
    size_bytes: int,
    text: TextSource,
    start: int = 0,
    has_fields: Callable[[bytes], bool] = lambda _: False,
) -> Index | None:
    """Read the headers from `start` on; return an index if the members of a key stand apart.

    `has_fields` tells of keys before `start` whether they had fields of their own.
    """
    file.seek(start)
    reader = TarReader(file, start, size_bytes)
    members, damage, behind = _Members(), None, start
    try:
        for member in reader:
            field = field_of(member.name, text.extension)
            is_whole, behind = member.end <= size_bytes, min(member.end, size_bytes)
            if field is not None and member.kind != "directory" and is_whole:
                members.add(member, field, not field.is_direct and has_fields(field.base))
    except TarDamage as error:
        damage = error
    is_cut = not reader.has_end_marker and (damage is None or damage.state in _CUTS)
    hit = field_of(damage.name or b"", text.extension) if is_cut and damage else None
    if not members.stand_apart(hit):
        return None
    resolved = members.resolve()
    cut = resolved.incomplete(text, hit) if is_cut else frozenset()
    return Index(
        starts=resolved.starts[np.argsort(resolved.rows, kind="stable")],
        size_bytes=resolved.size_bytes,
        ignored=resolved.ignored,
        damage=damage,
        has_end_marker=reader.has_end_marker,
        behind=behind,
        end=reader.bytes_read,
        cut=cut,
    )


class _Members:
    """What is known of each member, in the order of the tar, as columns of numbers.

    Hashes that are equal by chance bring no samples together: names decide when they are read.
    """

    def __init__(self) -> None:
        self._starts, self._sizes = array("q"), array("q")
        self._keys, self._bases = array("q"), array("q")
        self._kinds = array("B")  # the number of extension and role
        self._endings = array("B")  # the number of what stands behind the base
        self._is_known = array("B")  # whether its base had fields of its own before
        self._kind_numbers: dict[tuple[str, str], int] = {}
        self._ending_numbers: dict[str, int] = {}

    def add(self, member: Member, field: Field, is_known: bool) -> None:
        self._starts.append(member.start)
        self._sizes.append(member.end - member.start)
        self._keys.append(hash(field.key))
        self._bases.append(hash(field.base))
        kind = (field.extension, field.role)
        self._kinds.append(self._kind_numbers.setdefault(kind, len(self._kind_numbers)))
        self._endings.append(0 if field.is_direct else self._ending_number(field))
        self._is_known.append(is_known)

    def _ending_number(self, field: Field) -> int:
        ending = bounded_ending(field, self._ending_numbers)
        return self._ending_numbers.setdefault(ending, len(self._ending_numbers))

    def stand_apart(self, hit: Field | None) -> bool:
        """Whether any base comes back after others, were it in the member that damage hit."""
        bases = np.frombuffer(self._bases, np.int64)
        if not len(bases):
            return False
        runs = 1 + np.count_nonzero(bases[1:] != bases[:-1])
        comes_back = hit is not None and hash(hit.base) in bases[bases != bases[-1]]
        return bool(runs > len(np.unique(bases)) or comes_back)

    def resolve(self) -> "_Resolved":
        """Tell fields of keys with a dot from fields beside a key's own."""
        keys, bases = np.frombuffer(self._keys, np.int64), np.frombuffer(self._bases, np.int64)
        is_direct = keys == bases
        is_beside = np.frombuffer(self._is_known, np.uint8).astype(bool)
        is_beside |= ~is_direct & np.isin(bases, self._bases_with_fields(bases, is_direct))
        kept = np.flatnonzero(~is_beside)
        endings = Counter(np.frombuffer(self._endings, np.uint8)[is_beside].tolist())
        names = list(self._ending_numbers)
        bits = np.array([1 << number for number in range(len(self._kind_numbers))], np.int64)
        roles = np.array([_ROLE_BITS[role] for _, role in self._kind_numbers], np.int64)
        kinds = np.frombuffer(self._kinds, np.uint8)[kept]
        return _Resolved(
            starts=np.frombuffer(self._starts, np.int64)[kept],
            size_bytes=int(np.frombuffer(self._sizes, np.int64)[kept].sum()),
            keys=keys[kept],
            rows=np.array(_rows(keys[kept].tolist(), bits[kinds].tolist()), np.int64),
            roles=roles[kinds],
            ignored=Counter({names[number]: count for number, count in endings.items()}),
        )

    def _bases_with_fields(self, bases: Ints, is_direct: NDArray[np.bool_]) -> Ints:
        """Find bases with fields of their own, but for those with too many others before."""
        others_before: Counter[int] = Counter()
        outranking = set[int]()
        has_fields = set(bases[is_direct].tolist())
        for base, direct in zip(bases.tolist(), is_direct.tolist(), strict=True):
            if direct and others_before[base] <= MOST_HELD:
                outranking.add(base)
            elif not direct and base in has_fields:
                others_before[base] += 1
        return np.array(sorted(outranking), np.int64)


@dataclass(frozen=True, slots=True)
class _Resolved:
    """The members that are of some sample, each with the row of its sample."""

    starts: Ints
    size_bytes: int
    keys: Ints
    rows: Ints
    roles: Ints
    ignored: Counter[str]

    def incomplete(self, text: TextSource, hit: Field | None) -> frozenset[int]:
        """Return the keys, hashed, that lack a picture or a text where others have it.

        `hit` is the member that damage hit: its key is one of them, and others have what it is.
        """
        has = np.zeros(int(self.rows.max()) + 1, np.int64)
        np.bitwise_or.at(has, self.rows, self.roles)
        there = int(np.bitwise_or.reduce(self.roles)) | (_ROLE_BITS[hit.role] if hit else 0)
        wanted = sum(_ROLE_BITS[role] for role in text.roles) & there
        cut = frozenset(self.keys[(has & wanted)[self.rows] != wanted].tolist())
        return cut | {hash(hit.key)} if hit and hash(hit.key) in self.keys else cut


def _rows(keys: Sequence[int], kinds: Sequence[int]) -> list[int]:
    """Number the samples by their first member.

    Members of a key are joined by runs of neighbours, so that a key that comes back with a member
    that it had is a row of its own, whole.
    """
    first_row: dict[int, int] = {}
    seen: dict[int, int] = {}
    rows: list[int] = []
    count = at = 0
    while at < len(keys):
        key, begin, run = keys[at], at, 0
        while at < len(keys) and keys[at] == key and not run & kinds[at]:
            run |= kinds[at]
            at += 1
        row = first_row.get(key)
        if row is None or seen[key] & run:
            row, count = count, count + 1
        first_row.setdefault(key, row)
        seen[key] = seen.get(key, 0) | run
        rows += [row] * (at - begin)
    return rows


class IndexedReader:
    """Reads the members of an index, in its order, as `TarReader` does in theirs."""

    def __init__(self, file: BinaryIO, index: Index, start: int = 0) -> None:
        self._file = cast(BinaryIO, RangeFile(file)) if is_remote(file) else file
        self._index = index
        self._member: TarReader | None = None
        self._start, self._passed_bytes = start, 0
        self.has_end_marker, self.bytes_read = index.has_end_marker, index.end

    def __iter__(self) -> Iterator[Member]:
        """Yield every member; raises TarDamage where the headers ended in it."""
        for start in self._index.starts.tolist():
            self._file.seek(start)
            self._member = TarReader(self._file, start)
            member = next(iter(self._member), None)
            if member is None:
                raise TarDamage("corrupt", start, "a member is gone: the file is written to")
            yield member
            self._passed_bytes += member.end - start
        if self._index.damage is not None:
            raise self._index.damage

    @property
    def passed_bytes(self) -> int:
        """How far it is in the file, as if what was left out were spread among the rest."""
        share = self._passed_bytes / max(self._index.size_bytes, 1)
        return self._start + int(share * (self._index.behind - self._start))

    def read(self, member: Member) -> bytes:
        """Return the bytes of the member just yielded."""
        if self._member is None:
            raise RuntimeError("no member was taken yet")
        return self._member.read(member)
