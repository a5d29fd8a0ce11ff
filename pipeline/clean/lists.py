"""Lists of what a run leaves alone: samples that need no model, pictures that must never show.

Both are written into the run folder when it is created, where every worker reads them; their
digests are part of what decides the output.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.media.difference_hash import DISTANCE, bits_set, near_limits
from shards.errors import DamagedFile, UsageError
from shards.inputs.reader import RawSample
from shards.inputs.shard import InputShard
from shards.naming import encode_name
from shards.reasons import SampleReason
from shards.run.exclusion import BLOCK_NAME, SKIP_NAME, left_out_of, read_groups
from shards.run.run import Run
from shards.run.view import open_view
from shards.schema import GROUPS, open_parquet, versioned_schema
from shards.store import filesystem

SKIP = versioned_schema([("shard", pa.string(), False), ("key", pa.string(), False)])
_SHOWN = 200  # characters of a file's columns
_ROWS_PER_GROUP = 10_000  # whoever wants one shard reads so many
_ENTRY = re.compile(r"(?:(sha256|dhash):)?([0-9a-fA-F]{64})")
_VIEW = re.compile(r"(.+):([A-Za-z0-9_-]{1,64})")


class ListError(UsageError):
    """A list that cannot be read, and what is expected of one."""


def digest(data: bytes) -> str:
    """Hash a list's content."""
    return hashlib.sha256(data).hexdigest()


def with_lists(identity: dict[str, Any], lists: Mapping[str, bytes]) -> dict[str, Any]:
    """Put the digests of lists, given by the name of their file, into what decides the output."""
    screening = {k: v for k, v in identity["screen"].items() if k != "block_hashes"}
    if BLOCK_NAME in lists:
        screening["block_hashes"] = digest(lists[BLOCK_NAME])
    skip = {"skip": digest(lists[SKIP_NAME])} if SKIP_NAME in lists else {}
    return {**identity, "screen": screening, **skip}


def read_lists(skip: str | None, block_hashes: str | None) -> dict[str, bytes]:
    """Read the lists that a recipe names, by the name of the run's own copy."""
    lists = {}
    if skip is not None:
        lists[SKIP_NAME] = read_skip_list(skip)
    if block_hashes is not None:
        lists[BLOCK_NAME] = read_block_list(block_hashes)
    return lists


def keep_lists(run: Run, lists: Mapping[str, bytes]) -> None:
    """Write lists into a run folder, where they are not there yet."""
    for name, data in lists.items():
        run.store.create(name, data)


def read_skip_list(location: str) -> bytes:
    """Read a skip-list as the Parquet file that a run keeps, by shard and key, each once.

    It is RUN:VIEW, for what the view leaves out, or a file: Parquet with the columns `shard` and
    `key`, or one SHARD/KEY a line. Raises ListError, DamagedFile.
    """
    view = _as_view(location)
    table = _of_view(*view.groups()) if view else _of_file(location)
    return _as_skip_list(table.filter(pc.is_valid(table["key"])))


def with_shards(data: bytes, drawn_from: Mapping[str, str]) -> bytes:
    """Make a skip-list that names other shards, each with the keys of the one it is drawn from."""
    listed = pq.read_table(pa.BufferReader(data))
    parts = [SKIP.empty_table()]
    for shard, source in drawn_from.items():
        keys = listed.filter(pc.equal(listed["shard"], source))["key"]
        parts.append(pa.table([pa.repeat(shard, len(keys)), keys], schema=SKIP))
    return _as_skip_list(pa.concat_tables(parts))


def check_skip_list(data: bytes, shards: Iterable[str]) -> None:
    """Raise ListError for a list that names no shard of a run: it is of another input."""
    listed = pq.read_table(pa.BufferReader(data), columns=["shard"])["shard"]
    if len(listed) and not set(listed.unique().to_pylist()) & set(shards):
        raise ListError(
            f"the skip-list names {listed[0].as_py()!r} and no shard of this input, which has "
            f"{next(iter(shards), 'none')!r}; it should come from a run over the same input"
        )


def doubt_skip_list(location: str, data: bytes, inputs: Iterable[InputShard]) -> str | None:
    """Say why a list that is RUN:VIEW seems to be of another input; None where nothing says so.

    Shards of two inputs may share their names: then not one of those that it names is as large.
    """
    if (view := _as_view(location)) is None:
        return None
    listed = set(pq.read_table(pa.BufferReader(data), columns=["shard"])["shard"].to_pylist())
    there = {shard.shard: shard.size_bytes for shard in Run.open(view[1]).inputs}
    both = [shard for shard in inputs if shard.shard in listed and shard.shard in there]
    if not both or any(shard.size_bytes == there[shard.shard] for shard in both):
        return None
    first = both[0]
    return (
        f"the skip-list {location} seems to be of another input: its shard {first.shard!r} has "
        f"{there[first.shard]:,} bytes, the one here {first.size_bytes:,}, and no other fits. What "
        "has the same shard and key is skipped all the same"
    )


def skipped_keys(run: Run, shard: str) -> frozenset[str]:
    """Return the keys of a shard that the run's skip-list names, and read no more than that."""
    if "skip" not in run.identity:
        return frozenset()
    where = run.store.url(SKIP_NAME)
    try:
        with run.store.open(SKIP_NAME) as source, open_parquet(source, where) as file:
            groups = [n for n in range(file.num_row_groups) if _may_hold(file, n, shard)]
            rows = file.read_row_groups(groups, use_threads=False)
    except FileNotFoundError as error:
        raise DamagedFile(where, "the run's skip-list", "none: it is gone") from error
    return frozenset(rows.filter(pc.equal(rows["shard"], shard))["key"].to_pylist())


def is_listed(key: str, keys: frozenset[str]) -> bool:
    """Check for a sample's key, as it stands in the input or encoded as in clean shards."""
    return bool(keys) and (key in keys or encode_name(key) in keys)


def reject_listed(raws: Iterable[RawSample], keys: frozenset[str]) -> Iterator[RawSample]:
    """Pass samples on; one that is listed to be skipped comes rejected, without its data."""
    for raw in raws:
        if raw.reason is None and is_listed(raw.key, keys):
            yield replace(raw, reason=SampleReason.SKIPPED, image=None, text=None, meta=None)
        else:
            yield raw


def read_keys(location: str) -> pa.Table:
    """Read a file of samples as a table of shard and key; raises ListError."""
    return _of_file(location)


@dataclass(frozen=True, slots=True)
class BlockList:
    """Pictures that are never decoded (by SHA-256), kept or shown (by difference hash, too)."""

    sha256: frozenset[str] = frozenset()
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 4), np.uint64))

    @classmethod
    def parse(cls, data: bytes, where: str) -> "BlockList":
        """Read lines of `sha256:HEX` (or HEX) and `dhash:HEX`; `#` begins a comment.

        Raises ListError.
        """
        exact, looks = set[str](), list[bytes]()
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            entry = line.partition("#")[0].strip()
            match = _ENTRY.fullmatch(entry)
            if entry and match is None:
                raise ListError(
                    f"{where}, line {number}: expected sha256: or dhash: and 64 hex digits, found "
                    f"{entry[:80]!r}"
                )
            if match and match[1] == "dhash":
                looks.append(bytes.fromhex(match[2]))
            elif match:
                exact.add(match[2].lower())
        words = np.frombuffer(b"".join(looks), np.uint64).reshape(-1, 4)
        return cls(frozenset(exact), words)

    @classmethod
    def of_run(cls, run: Run) -> "BlockList":
        """Read the list that a run keeps; raises DamagedFile where it is not what it was."""
        known = run.identity.get("screen", {}).get("block_hashes")
        if known is None:
            return cls()
        where = run.store.url(BLOCK_NAME)
        try:
            data = run.store.read(BLOCK_NAME)
        except FileNotFoundError as error:
            raise DamagedFile(where, "the run's block list", "none: it is gone") from error
        if digest(data) != known:
            raise DamagedFile(where, f"sha256 {known}", digest(data))
        return cls.parse(data, where)

    def looks_like_any(self, look: bytes) -> bool:
        """Check a difference hash against those of the list."""
        if not len(self.hashes):
            return False
        own = np.frombuffer(look, np.uint64)
        limits = near_limits(DISTANCE, bits_set(self.hashes), bits_set(own))
        return bool((bits_set(self.hashes ^ own) <= limits).any())


def read_block_list(location: str) -> bytes:
    """Read a list of pictures that must never show, and check it; raises ListError."""
    data = _read(location)
    BlockList.parse(data, location)
    return data


def _read(location: str) -> bytes:
    fs, path = filesystem(location)
    try:
        return bytes(fs.cat_file(path))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ListError(f"{location}: no such list") from error


def _as_skip_list(table: pa.Table) -> bytes:
    rows = table.group_by(["shard", "key"]).aggregate([]).select(SKIP.names).cast(SKIP)
    ordered = rows.sort_by([("shard", "ascending"), ("key", "ascending")])
    buffer = io.BytesIO()
    pq.write_table(ordered, buffer, row_group_size=_ROWS_PER_GROUP, write_page_checksum=True)
    return buffer.getvalue()


def _as_view(location: str) -> re.Match[str] | None:
    fs, path = filesystem(location)
    return None if fs.exists(path) else _VIEW.fullmatch(location)


def _of_view(run_url: str, name: str) -> pa.Table:
    view = open_view(run := Run.open(run_url), name)
    if view.excluded is None:
        raise ListError(
            f"the view {name!r} of {run.store.url()} leaves no sample out: it is no skip-list; "
            "`capfilt dedup` makes one"
        )
    return left_out_of(read_groups(run, view.excluded)).select(SKIP.names)


def _of_file(location: str) -> pa.Table:
    data = _read(location)
    if data.startswith(b"PAR1"):
        try:
            return _of_parquet(data, location)
        except DamagedFile as error:
            raise ListError(f"{location} is no whole Parquet file: {error.actual}") from error
    try:  # not `splitlines`: a key may hold what that takes for the end of a line
        lines = [line.strip() for line in data.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError:
        raise ListError(f"{location}: neither Parquet nor a text of SHARD/KEY lines") from None
    return _of_lines([line for line in lines if line and not line.startswith("#")], location)


def _of_parquet(data: bytes, where: str) -> pa.Table:
    with open_parquet(pa.BufferReader(data), where) as file:
        names = file.schema_arrow.names
        for name in SKIP.names:
            if names.count(name) != 1:
                raise ListError(
                    f"{where}: expected one column {name!r}, found {names.count(name)} among "
                    f"{', '.join(names)[:_SHOWN]}"
                )
            kind = file.schema_arrow.field(name).type
            if not _is_text(kind):
                raise ListError(
                    f"{where}: column {name!r} should hold texts, found {str(kind)[:_SHOWN]}"
                )
        of_view = set(GROUPS.names) <= set(names)
        table = file.read(columns=GROUPS.names if of_view else SKIP.names, use_threads=False)
        table.validate(full=True)  # texts that are not UTF-8
        table = (left_out_of(table) if of_view else table).select(SKIP.names)
        table = table.cast(pa.schema([(name, pa.string()) for name in SKIP.names]))
    if nulls := sum(column.null_count for column in table.columns):
        raise ListError(f"{where}: rows without a shard or a key: {nulls}; each names one sample")
    return table


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _of_lines(lines: Sequence[str], where: str) -> pa.Table:
    parts = [line.partition("/") for line in lines]
    for line, (shard, _, key) in zip(lines, parts, strict=True):
        if not shard or not key:
            raise ListError(f"{where}: expected SHARD/KEY in each line, found {line[:80]!r}")
    columns = [[shard for shard, _, _ in parts], [key for _, _, key in parts]]
    return pa.table([pa.array(column, pa.string()) for column in columns], SKIP.names)


def _may_hold(file: pq.ParquetFile, group: int, shard: str) -> bool:
    said = file.metadata.row_group(group).column(0).statistics
    return said is None or not said.has_min_max or said.min <= shard <= said.max
