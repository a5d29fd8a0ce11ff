"""Garbage: files of a run that nothing names, left by what was killed, lost a race, or was redone.

Only what has the form of this project's own files, and is old, can be garbage; whatever else lies
in the folder is left alone. Age alone makes no garbage of what a commit may yet name: an attempt
that is frozen, or on a machine whose clock is wrong, looks like a dead one. Its files are garbage
once another's commit stands for its shard (or another's view under its name), which it will find.
"""

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from shards.errors import CapfiltError
from shards.run.attempt import read_quarantined
from shards.run.commit import Commit, read_commits
from shards.run.run import Run
from shards.run.scoring.score_set import open_score_set, score_set_names
from shards.run.segment import read_committed
from shards.run.verify.lists import read_snapshot, snapshot_names
from shards.run.verify.problem import Problem
from shards.run.verify.run import run_problems
from shards.run.verify.scores import check_score_commits, read_score_sets
from shards.run.verify.views import read_view, view_records
from shards.store import StoredFile

_DATA = re.compile(
    r"data/(?:samples|texts|decisions|scores|clean)/(.+)-[0-9a-f]{16}\.(?:parquet|tar)"
)
_VIEW_DATA = re.compile(r"views/[^/]+/(?:decisions|clean)/(.+)-[0-9a-f]{16}\.(?:parquet|tar)")
_SCORES = re.compile(r"(scores/[^/]+/)data/scores/(.+)-[0-9a-f]{16}\.parquet")
_VIEW_LIST = re.compile(r"views/[^/]+/(?:shards|groups)-[0-9a-f]{16}\.parquet")
_TEMPORARY = re.compile(r"(?:.*/)?\.tmp-(?:[a-z0-9_]{8}|[0-9a-f]{16}|probe-[0-9a-f]{16})")
_PROBE = re.compile(r"\.tmp-probe-[0-9a-f]{16}")  # a driver's, by which workers know the run
_KEPT = re.compile(
    r"run\.json|recipe\.yaml|(?:input|files|candidates|skip)\.parquet|block_hashes\.txt"
    r"|snapshot\.json|clean\.txt|README\.md"
    r"|views/[^/]+/(?:view\.json|clean\.txt)"
    r"|scores/[^/]+/(?:run\.json|recipe\.yaml|input\.parquet|(?:commits|attempts)/.*)"
    r"|(?:commits|segments|attempts|snapshots|quarantine|report|logs|set_aside)/.*"
)
_REMOVERS = 16


class GarbageError(CapfiltError, ValueError):
    """A run of which not all can be read that names files."""


class Kind(StrEnum):
    """What a leftover was to be."""

    DATA = "data"
    VIEW = "view"
    SCORES = "scores"
    TEMPORARY = "temporary"


@dataclass(frozen=True, slots=True)
class Leftover:
    """One file, or one temporary folder with all in it; no age where the store knows no times."""

    name: str
    kind: Kind
    size_bytes: int
    age_s: float | None
    files: tuple[str, ...]
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may go, what is too young to tell, what may yet be committed, and what is not ours."""

    old: tuple[Leftover, ...]
    young: tuple[Leftover, ...]
    unfinished: tuple[Leftover, ...]
    unknown: tuple[str, ...]


def find_garbage(run: Run, older_than_s: float, abandoned: bool = False) -> Garbage:
    """Find what no commit, snapshot or view names; raises GarbageError if one cannot be read.

    Files are listed before the names are read: what is committed meanwhile is seen to be named.
    With `abandoned`, files of shards without a commit and of views without a record count by their
    age, too: whoever writes them, frozen or slow, has to do its work again.
    """
    there, now_s = run.store.survey(), time.time()
    commits = read_committed(run).commits
    named, shards = _named(run, commits), set(run.shards)
    settled = commits.keys() | {f"views/{name}" for name in view_records(run)}
    for name in score_set_names(run):
        done = read_commits(open_score_set(run, name).record)
        named |= {f"scores/{name}/{file.name}" for each in done.values() for file in each.files}
        settled |= {f"scores/{name}/{shard}" for shard in done}
    at_work = bool(shards - commits.keys() - read_quarantined(run).keys())
    leftovers, unknown = list(_temporary(there, now_s)), []
    for file in there:
        if file.is_folder or file.name in named or _is_leftover(file.temporary):
            continue
        kind = _kind(file.name, shards)
        if kind is not None:
            age_s = None if file.modified_s is None else now_s - file.modified_s
            leftovers.append(Leftover(file.name, kind, file.size_bytes, age_s, (file.name,)))
        elif not _KEPT.fullmatch(file.name):
            unknown.append(file.name)
    old, young, unfinished = list[Leftover](), list[Leftover](), list[Leftover]()
    for leftover in sorted(leftovers, key=lambda leftover: leftover.name):
        if leftover.age_s is None or leftover.age_s < older_than_s:
            young.append(leftover)
        elif abandoned or _is_settled(leftover, settled, at_work):
            old.append(leftover)
        else:
            unfinished.append(leftover)
    return Garbage(tuple(old), tuple(young), tuple(unfinished), tuple(unknown))


def remove_garbage(run: Run, leftovers: Sequence[Leftover]) -> None:
    """Remove files, and the temporary folders that held them; what was committed since stays."""
    named = {file.name for done in read_commits(run).values() for file in done.files}
    files = [name for leftover in leftovers for name in leftover.files if name not in named]
    with ThreadPoolExecutor(_REMOVERS) as pool:
        list(pool.map(run.store.delete, files))
    for leftover in leftovers:
        for folder in sorted(leftover.folders, reverse=True):  # those within come first
            run.store.remove_empty_folder(folder)


def _is_settled(leftover: Leftover, settled: Collection[str], at_work: bool) -> bool:
    """Check that no process, however old or slow, can need a leftover yet.

    A driver writes its probe once, and shows it to workers that start days later.
    """
    if leftover.kind == Kind.TEMPORARY:
        return not (at_work and _PROBE.fullmatch(leftover.name))
    return _owner(leftover.name) in settled


def _owner(name: str) -> str:
    """Return the shard of a data file, or the folder of a view's, or both of a file of scores."""
    if scores := _SCORES.fullmatch(name):
        return scores[1] + scores[2]
    match = _DATA.fullmatch(name)
    return match[1] if match else "/".join(name.split("/")[:2])


def _named(run: Run, commits: Mapping[str, Commit]) -> set[str]:
    """Return the names of all files that commits, snapshots and views stand on."""
    faults = list(run_problems(run, commits))
    sets, problems = read_score_sets(run)
    faults += problems
    for scores in sets:
        faults += check_score_commits(scores)
    named = {file.name for done in commits.values() for file in done.files}
    for snapshot_id in snapshot_names(run):
        snapshot = read_snapshot(run, snapshot_id)
        if isinstance(snapshot, Problem):
            faults.append(snapshot)
        else:
            named |= {file.name for shard in snapshot.shards for file in shard.files}
    for name in view_records(run):
        view = read_view(run, name)
        if isinstance(view, Problem):
            faults.append(view)
            continue
        named |= {file.name for shard in view.shards for file in shard.files}
        if view.record is not None:
            named |= {view.record.shards}
            named |= {view.record.excluded.groups} if view.record.excluded else set()
    if faults:
        raise GarbageError(
            f"{run.store.url()}: files still needed may be named by what is damaged ("
            f"{len(faults)} in all; the first: {faults[0]}); nothing is removed. Run "
            "`capfilt verify RUN --repair` first, and do what it says"
        )
    return named


def _kind(name: str, shards: set[str]) -> Kind | None:
    for pattern, kind in ((_DATA, Kind.DATA), (_VIEW_DATA, Kind.VIEW)):
        match = pattern.fullmatch(name)
        if match and match[1] in shards:
            return kind
    scores = _SCORES.fullmatch(name)
    if scores and scores[2] in shards:
        return Kind.SCORES
    return Kind.VIEW if _VIEW_LIST.fullmatch(name) else None


def _is_leftover(temporary: str | None) -> bool:
    return temporary is not None and _TEMPORARY.fullmatch(temporary) is not None


def _temporary(there: Sequence[StoredFile], now_s: float) -> Iterator[Leftover]:
    """Yield each temporary file or folder as one; a folder is as young as the youngest in it."""
    parts: dict[str, list[StoredFile]] = {}
    for file in there:
        if file.temporary is not None and _is_leftover(file.temporary):
            parts.setdefault(file.temporary, []).append(file)
    for name, files in parts.items():
        times = [file.modified_s for file in files if file.modified_s is not None]
        yield Leftover(
            name=name,
            kind=Kind.TEMPORARY,
            size_bytes=sum(file.size_bytes for file in files),
            age_s=now_s - max(times) if len(times) == len(files) else None,
            files=tuple(file.name for file in files if not file.is_folder),
            folders=tuple(file.name for file in files if file.is_folder),
        )
