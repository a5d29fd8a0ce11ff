"""The lists of a run, checked against its commits: snapshots, segments, `clean.txt` and so on."""

import os.path
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from shards.errors import DamagedFile
from shards.run.commit import Commit, FileRecord, commit_name
from shards.run.run import Run
from shards.run.scoring.compaction import (
    COLUMNS,
    Compaction,
    compaction_name,
    parse_compaction,
    read_facts,
)
from shards.run.scoring.distribution import count_scores, parse_scores, scores_name
from shards.run.segment import parse_segment
from shards.run.snapshot import (
    Snapshot,
    SnapshotError,
    SnapshotShard,
    as_snapshot_shard,
    open_snapshot,
    read_newest,
    snapshot_id,
    table_files,
)
from shards.run.verify.problem import Problem
from shards.schema import SchemaError


def snapshot_names(run: Run) -> list[str]:
    """Name the files of all snapshots."""
    return [name for name in run.store.list("snapshots") if name.endswith(".parquet")]


def read_snapshot(run: Run, name: str) -> Snapshot | Problem:
    """Read a snapshot by its file's name, or say why it cannot be; raises SchemaError."""
    id = name.removeprefix("snapshots/").removesuffix(".parquet")
    try:
        return open_snapshot(run, id)
    except SnapshotError as error:
        return Problem(name, str(error))
    except DamagedFile as error:
        return Problem.of(name, error)


def check_snapshot(run: Run, name: str, commits: Mapping[str, Commit]) -> Iterator[Problem]:
    """Compare a snapshot with its own name, and with what is committed."""
    snapshot = read_snapshot(run, name)
    if isinstance(snapshot, Problem):
        yield snapshot
        return
    hashed = snapshot_id(snapshot.shards)
    if hashed != snapshot.id:
        yield Problem(name, "its rows' hash", snapshot.id, hashed)
    for row in snapshot.shards:
        done = commits.get(row.shard)
        if done is None or as_snapshot_shard(done) != row:
            yield Problem(name, f"shard {row.shard} is not as committed")


def check_score_counts(run: Run, name: str) -> Iterator[Problem]:
    """Count again what is kept beside a snapshot, where it is of these very files."""
    snapshot = read_snapshot(run, name)
    if isinstance(snapshot, Problem):
        return  # `check_snapshot` says so
    try:
        kept = parse_scores(run, snapshot.id)
    except FileNotFoundError:
        return
    except DamagedFile as error:
        yield Problem.of(scores_name(snapshot.id), error)
        return
    try:
        counted = count_scores(run, snapshot.shards)
    except (DamagedFile, SchemaError):
        return  # the check of the commit says so
    if kept.texts_sha256 == counted.texts_sha256 and kept != counted:
        yield Problem(scores_name(snapshot.id), "does not say how the texts scored")


def check_compaction(run: Run, name: str) -> Iterator[Problem]:
    """Compare a snapshot's compaction with the tables, where it is of these very files."""
    snapshot = read_snapshot(run, name)
    if isinstance(snapshot, Problem):
        return  # `check_snapshot` says so
    beside = compaction_name(snapshot.id)
    try:
        compaction = parse_compaction(run, snapshot.shards, snapshot.id)
        if compaction is not None and not _holds_facts(compaction, snapshot.shards):
            yield Problem(beside, "is not what the tables say")
    except FileNotFoundError:
        return
    except DamagedFile as error:
        if error.where == run.store.url(beside):  # of a table, the check of the commit says so
            yield Problem.of(beside, error)


def _holds_facts(compaction: Compaction, shards: Sequence[SnapshotShard]) -> bool:
    return all(
        _as_bits(compaction.read(some, COLUMNS)) == _as_bits(facts)
        for some, facts in read_facts(compaction.run, shards)
    )


def _as_bits(table: pa.Table) -> list[pa.Array]:
    """Return the columns, with integers for floats: NaN is not equal to itself."""
    columns = [column.combine_chunks() for column in table.columns]
    return [c.view(pa.int32()) if pa.types.is_float32(c.type) else c for c in columns]


def check_segment(run: Run, name: str, commits: Mapping[str, Commit]) -> Iterator[Problem]:
    """Compare a segment with its own name, and the copies in it that count with the commits."""
    try:
        entries = parse_segment(run, name, run.store.read(name))
    except FileNotFoundError:
        return  # another has made it part of a fuller one
    except DamagedFile as error:
        yield Problem.of(name, error)
        return
    listed = {file.name: file for file in run.store.survey("commits")}
    for entry in entries:
        shard = entry.commit.shard
        if entry.is_of(listed.get(commit_name(shard))) and commits.get(shard) != entry.commit:
            yield Problem(name, f"shard {shard} is not as committed")


def check_newest(run: Run) -> Iterator[Problem]:
    """Check that `snapshot.json` names a snapshot, and that `clean.txt` lists its clean tars."""
    try:
        record = read_newest(run)
    except DamagedFile as error:
        yield Problem.of("snapshot.json", error)
        return
    if record is None:
        if run.store.exists("clean.txt"):
            yield Problem("snapshot.json", "the file is gone, and clean.txt is there")
        return
    name = f"snapshots/{record['id']}.parquet"
    if not run.store.exists(name):
        yield Problem("snapshot.json", "there is no such snapshot", actual=record["id"])
        return
    snapshot = read_snapshot(run, name)
    if isinstance(snapshot, Problem):
        return  # `check_snapshot` says so
    expected = {"shards": len(snapshot.shards), "partial": len(snapshot.shards) < len(run.shards)}
    found = {key: record.get(key) for key in expected}
    if found != expected:
        yield Problem("snapshot.json", "counts", str(expected), str(found))
    yield from check_clean_list(run, "clean.txt", table_files(snapshot.shards, "clean"))


def check_clean_list(run: Run, name: str, files: Sequence[FileRecord]) -> Iterator[Problem]:
    """Check that a list of clean tars has their absolute URLs, one a line, in order."""
    try:
        lines = run.store.read(name).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        yield Problem(name, "the file is gone")
        return
    roots = {
        line.removesuffix(f"/{file.name}") if line.endswith(f"/{file.name}") else None
        for line, file in zip(lines, files, strict=False)
    }
    if len(lines) != len(files) or None in roots:
        yield Problem(name, "does not list the clean tars", f"{len(files)}", f"{len(lines)} lines")
        return
    for root in sorted(filter(None, roots)):
        if not _is_here(run, root):
            yield Problem(name, "lists the clean tars of another place", run.store.url(), root)


def _is_here(run: Run, root: str) -> bool:
    """Check whether a folder is the run's own, if need be by another path to it."""
    here = run.store.url()
    if root == here or not run.store.is_local:
        return root == here
    return os.path.exists(root) and os.path.samefile(root, here)  # noqa: PTH110, PTH121 - one each
