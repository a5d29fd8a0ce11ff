"""Verification: everything a run claims, recomputed from its files, one shard at a time."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from shards.commit import Commit, FileRecord, data_name, read_commits
from shards.consistency import SAMPLE_COLUMNS, complaints, kept_texts, recount
from shards.naming import encode_name
from shards.reader import RawSample, ShardReader, State
from shards.run import Run, fingerprint
from shards.schema import SCHEMAS, SchemaError, read_table
from shards.snapshot import (
    SnapshotError,
    as_snapshot_shard,
    newest_snapshot_id,
    open_snapshot,
    snapshot_id,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as the run says; `place` is a file's name, or the run's."""

    place: str
    what: str
    expected: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        difference = "" if self.expected is None else f": expected {self.expected}"
        return f"{self.place}: {self.what}{difference}" + (
            "" if self.found is None else f", found {self.found}"
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found wrong, and how much of the run there was to look at."""

    problems: tuple[Problem, ...]
    committed: int
    pending: tuple[str, ...]


def verify_run(run: Run) -> Verification:
    """Recompute files, hashes, rows, counts, clean tars and snapshot; read all of the data once.

    Shards that are not committed yet are pending, not problems; files that no commit names are
    left alone.
    """
    commits = read_commits(run)
    problems = list(_run_problems(run, commits))
    for done in commits.values():
        problems += _commit_problems(run, done)
    pending = tuple(shard for shard in run.shards if shard not in commits)
    return Verification(tuple(problems), len(commits), pending)


def _run_problems(run: Run, commits: dict[str, Commit]) -> Iterator[Problem]:
    if fingerprint(run.identity) != run.fingerprint:
        yield Problem("run.json", "fingerprint", fingerprint(run.identity), run.fingerprint)
    for name in run.store.list("commits"):
        shard = name.removeprefix("commits/").removesuffix(".json")
        if shard not in run.shards:
            yield Problem(name, "a commit of a shard that is not in input.parquet")
        elif shard not in commits:
            yield Problem(name, "torn: no commit can be read from it; run clean again")
    try:
        yield from _snapshot_problems(run, commits)
    except SnapshotError as error:
        yield Problem("snapshot.json", str(error))


def _snapshot_problems(run: Run, commits: dict[str, Commit]) -> Iterator[Problem]:
    if newest_snapshot_id(run) is None:
        return
    snapshot = open_snapshot(run)
    place = f"snapshots/{snapshot.id}.parquet"
    if snapshot_id(snapshot.shards) != snapshot.id:
        yield Problem(place, "its rows' hash", snapshot.id, snapshot_id(snapshot.shards))
    for row in snapshot.shards:
        done = commits.get(row.shard)
        if done is None or as_snapshot_shard(done) != row:
            yield Problem(place, f"shard {row.shard} is not as committed")


def _commit_problems(run: Run, done: Commit) -> Iterator[Problem]:
    place = f"commits/{done.shard}.json"
    listed = next(item for item in run.inputs if item.shard == done.shard)
    if done.fingerprint != run.fingerprint:
        yield Problem(place, "fingerprint", run.fingerprint, done.fingerprint)
    if done.input.size_bytes != listed.size_bytes:
        sizes = (str(listed.size_bytes), str(done.input.size_bytes))
        yield Problem(place, "bytes of the input as read", *sizes)
    files = {file.table: file for file in done.files}
    names = {table: data_name(table, done.shard, done.attempt) for table in files}
    as_named = all(file.name == names[table] for table, file in files.items())
    if not as_named or len(files) != len(done.files) or not SCHEMAS.keys() <= files.keys():
        yield Problem(place, "its files are not one per table under this attempt's names")
        return
    faults = [fault for file in done.files for fault in _file_problems(run, file)]
    yield from faults
    if not faults:
        yield from _content_problems(run, done, files)


def _file_problems(run: Run, file: FileRecord) -> Iterator[Problem]:
    try:
        size_bytes = run.store.size_bytes(file.name)
        digest = run.store.sha256(file.name)
    except FileNotFoundError:
        yield Problem(file.name, "the file is gone")
        return
    if size_bytes != file.size_bytes:
        yield Problem(file.name, "size in bytes", str(file.size_bytes), str(size_bytes))
    elif digest != file.sha256:
        yield Problem(file.name, "sha256", file.sha256, digest)


def _content_problems(run: Run, done: Commit, files: dict[str, FileRecord]) -> Iterator[Problem]:
    place = f"commits/{done.shard}.json"
    try:
        tables = {table: _read(run, files[table]) for table in SCHEMAS}
    except SchemaError as error:
        yield Problem(place, str(error))
        return
    for table, read in tables.items():
        if files[table].rows != len(read):
            yield Problem(files[table].name, "rows", str(files[table].rows), str(len(read)))
    faults = list(complaints(done.shard, **tables))
    yield from (Problem(place, fault) for fault in faults)
    if faults:
        return
    counted = recount(**tables)
    if counted != done.counts:
        yield Problem(place, "counts", counted.model_dump_json(), done.counts.model_dump_json())
    expected = _expected_clean(done.shard, tables)
    if "clean" in files:
        yield from _clean_problems(run, files["clean"], expected)
    elif expected and run.identity.get("write", {}).get("clean") != "none":
        yield Problem(place, "samples were kept, but it names no clean tar")


def _read(run: Run, file: FileRecord) -> pa.Table:
    columns = SAMPLE_COLUMNS if file.table == "samples" else None
    with run.store.open(file.name) as opened:
        return read_table(opened, file.table, file.name, columns)


def _expected_clean(shard: str, tables: dict[str, pa.Table]) -> dict[str, list[dict[str, Any]]]:
    """Give the kept texts by the key in the clean tar, in the order of the samples."""
    keys = tables["samples"]["key"].to_pylist()
    kept = kept_texts(tables["texts"], tables["decisions"])
    return {f"{shard}/{encode_name(keys[index])}": kept[index] for index in sorted(kept)}


def _clean_problems(
    run: Run, file: FileRecord, expected: dict[str, list[dict[str, Any]]]
) -> Iterator[Problem]:
    """Compare the clean tar, read strictly, with the kept samples and their texts."""
    found: list[str] = []
    with run.store.open(file.name) as opened:
        reader = ShardReader(opened)
        for row in reader:
            found.append(row.key)
            if row.key in expected and not _fits(row, expected[row.key], run.fingerprint):
                yield Problem(file.name, f"{row.key} is not the kept sample of the tables")
    if reader.state.state is not State.COMPLETE:
        yield Problem(file.name, "not a whole tar", State.COMPLETE, reader.state.state)
    if found != list(expected):
        yield Problem(file.name, "samples", f"{len(expected)}, those kept", f"{len(found)}")
    if file.rows != len(found):
        yield Problem(file.name, "rows", str(file.rows), str(len(found)))


def _fits(row: RawSample, texts: list[dict[str, Any]], run: str) -> bool:
    """Say whether a sample of the clean tar has an image, and just the kept texts."""
    if row.image is None or row.text is None or row.meta is None:
        return False
    try:
        record = json.loads(row.meta)
        listed = [{**text, **_scores(text)} for text in record["texts"]]
        same_texts = listed == texts and record["run"] == run
    except (ValueError, TypeError, KeyError):
        return False
    return same_texts and row.text.decode("utf-8", "replace") in {text["text"] for text in texts}


def _scores(text: dict[str, Any]) -> dict[str, float | None]:
    """Give a text's scores as the table's float32 holds them."""
    return {
        name: None if text[name] is None else struct.unpack("f", struct.pack("f", text[name]))[0]
        for name in ("itm", "itc")
    }
