"""Segments: many commits in one file, so that a run of very many shards is opened by few reads.

The commits stay the record of truth. A segment holds copies of up to 1,000 of them, with the size
and the version (ETag, or else time) that each file had in the listing when it was read. A copy
counts only while the listing says the same: what is new, changed or torn is read itself. A segment
is named by the hash of its bytes; one that is damaged or lost costs time, and nothing else.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from shards.errors import CapfiltError, DamagedFile
from shards.run.commit import Commit, commit_name, parse_commits
from shards.run.many import without_collection
from shards.run.run import Run
from shards.schema import SCHEMA_VERSION, check_version
from shards.store import StoredFile

MOST = 1_000  # commits in a segment
LEAST = 100  # that are in none; fewer are as soon read
_FROZEN = ConfigDict(frozen=True, extra="forbid")
_log = logging.getLogger(__name__)


class Entry(BaseModel):
    """The copy of a commit, and how its file was listed before it was read."""

    model_config = _FROZEN
    size_bytes: int
    version: str
    commit: Commit

    def is_of(self, listed: StoredFile | None) -> bool:
        """Check that the file is still listed as it was."""
        return listed is not None and (listed.size_bytes, listed.version) == self._stamp

    @property
    def _stamp(self) -> tuple[int, str]:
        return self.size_bytes, self.version


class _Segment(BaseModel):
    model_config = _FROZEN
    schema_version: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """The commits of a run at one time, in the order of the input list, and where they were read.

    `entries` are those that a segment may hold; `segment_of` names the segment of each that has
    one. `sizes` counts the commits in each segment that was looked at: 0 in a damaged one.
    """

    commits: Mapping[str, Commit] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    segment_of: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


@without_collection()
def read_committed(run: Run, known: Committed | None = None) -> Committed:
    """Read what is committed now: what `known` has, from it; the rest from segments or itself.

    Raises SchemaError for a commit that a newer version wrote.
    """
    names = segment_names(run)  # first: what is listed last is read without a question for each
    listed = {file.name: file for file in run.store.survey("commits")}
    there = [shard for shard in run.shards if commit_name(shard) in listed]
    known = known or Committed()
    entries, segment_of, sizes = dict[str, Entry](), dict[str, str](), dict(known.sizes)
    _take(known.entries.values(), listed, entries)
    segment_of.update((s, name) for s, name in known.segment_of.items() if s in entries)
    if len(entries) < len(there):
        for name, found in _read_segments(run, [name for name in names if name not in known.sizes]):
            sizes[name] = len(found)
            taken = _take(found, listed, entries)
            segment_of.update(dict.fromkeys(taken, name))
    rest = [shard for shard in there if shard not in entries]
    commits = {shard: entry.commit for shard, entry in entries.items()}
    for done in parse_commits(run, rest):
        commits[done.shard] = done
        file = listed[commit_name(done.shard)]
        if file.version is not None:
            entries[done.shard] = Entry.model_construct(
                size_bytes=file.size_bytes, version=file.version, commit=done
            )
    ordered = {shard: commits[shard] for shard in there if shard in commits}
    return Committed(ordered, entries, segment_of, sizes)


def write_segments(run: Run, committed: Committed, least: int = LEAST) -> None:
    """Roll commits into segments if so many are in none; what no full segment has goes together.

    Segments that these replace are removed: who has listed one, and finds it gone, reads commits.
    """
    used = Counter(committed.segment_of.values())
    worn = {name for name, size in committed.sizes.items() if used[name] < size or not size}
    loose = [entry for s, entry in committed.entries.items() if s not in committed.segment_of]
    if len(loose) < least and not worn:
        return
    full = {name for name in used if name not in worn and used[name] == MOST}
    waiting = (
        entry
        for shard, entry in committed.entries.items()
        if committed.segment_of.get(shard) not in full
    )
    written = set[str]()
    while some := tuple(islice(waiting, MOST)):
        data = _encode(some)
        name = segment_name(data)
        run.store.put(name, data)
        written.add(name)
    for name in committed.sizes.keys() - full - written:
        run.store.delete(name)


def segment_names(run: Run) -> list[str]:
    """Name the files of all segments."""
    return run.store.list("segments")


def segment_name(data: bytes) -> str:
    """Name a segment by its bytes."""
    return f"segments/{hashlib.sha256(data).hexdigest()[:32]}.json.zst"


def parse_segment(run: Run, name: str, data: bytes) -> tuple[Entry, ...]:
    """Read a segment; raises DamagedFile, and SchemaError for one that a newer version wrote."""
    where = run.store.url(name)
    actual = segment_name(data)
    if actual != name:
        raise DamagedFile(where, f"bytes of the name {name}", actual)
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            segment = _Segment.model_validate_json(stream.read())
    except (OSError, ValidationError) as error:
        raise DamagedFile(where, "commits", error) from error
    check_version(segment.schema_version, where)
    return segment.entries


def _take(
    found: Iterable[Entry], listed: Mapping[str, StoredFile], entries: dict[str, Entry]
) -> list[str]:
    """Add the entries that still count, and that are not there yet; name their shards."""
    taken = [
        entry
        for entry in found
        if entry.commit.shard not in entries
        and entry.is_of(listed.get(commit_name(entry.commit.shard)))
    ]
    entries.update((entry.commit.shard, entry) for entry in taken)
    return [entry.commit.shard for entry in taken]


def _read_segments(run: Run, names: list[str]) -> Iterator[tuple[str, Sequence[Entry]]]:
    shards = set(run.shards)
    for name, data in run.store.read_many(names).items():
        try:
            entries = parse_segment(run, name, data)
        except CapfiltError as error:
            _log.warning("a segment of commits is left out, they are read themselves: %s", error)
            entries = ()
        yield name, [entry for entry in entries if entry.commit.shard in shards]


def _encode(entries: Sequence[Entry]) -> bytes:
    segment = _Segment.model_construct(schema_version=SCHEMA_VERSION, entries=tuple(entries))
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(segment.model_dump_json().encode())
    return sink.getvalue().to_pybytes()
