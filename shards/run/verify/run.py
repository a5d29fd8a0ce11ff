"""Verification: everything a run claims, recomputed from its files, one shard at a time."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from shards.errors import DamagedFile
from shards.inputs.candidates import NAME as CANDIDATES
from shards.inputs.candidates import open_candidates
from shards.run.attempt import parse_quarantine
from shards.run.commit import Commit, read_commit, read_commits
from shards.run.exclusion import BLOCK_NAME, SKIP_NAME
from shards.run.run import Run, recipe_is_whole
from shards.run.segment import segment_names
from shards.run.verify.lists import (
    check_compaction,
    check_newest,
    check_score_counts,
    check_segment,
    check_snapshot,
    snapshot_names,
)
from shards.run.verify.problem import Problem
from shards.run.verify.scores import check_score_commits, check_scores, read_score_sets
from shards.run.verify.shard import check_commit
from shards.run.verify.views import (
    check_view_lists,
    check_view_shard,
    decisions_checks,
    read_left_out,
    read_view,
    view_records,
)
from shards.run.view import View

THREADS = 4  # hashing and decoding let others run; an object store wants several at once

Work = Callable[[], Iterable[Problem]]
Report = Callable[[int, int], None]  # hears how many shards are done, of how many


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found wrong, and how much of the run there was to look at."""

    problems: tuple[Problem, ...]
    committed: int
    pending: tuple[str, ...]
    quarantined: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()


def no_report(_done: int, _of: int) -> None:
    """Report to nobody."""


class ShardChecker:
    """Checks committed shards of a run, one by one, with the views that decide them again."""

    def __init__(self, run: Run, views: Iterable[View]) -> None:
        self._run = run
        self._sizes = {item.shard: item.size_bytes for item in run.inputs}
        self._views = [
            (view, {shard.shard: shard for shard in view.shards}, read_left_out(run, view))
            for view in views
        ]
        self._scores, _ = read_score_sets(run)

    def check(self, shard: str) -> list[Problem]:
        """Read all of a shard's files, once and once more for each view; list what is wrong.

        A shard that is not committed has no files, and is no view's fault.
        """
        done = read_commit(self._run, shard)
        if done is None:
            return []
        problems = list(check_commit(self._run, done, self._sizes[shard]))
        decisions = done.file("decisions")
        for view, shards, left_out in self._views:
            if decisions is not None and shard in shards:
                problems += check_view_shard(self._run, view, shards[shard], decisions, left_out)
        for scores in self._scores:
            problems += check_scores(scores, done)
        return problems


CheckAll = Callable[[ShardChecker, Sequence[str], Report], Iterable[list[Problem]]]


def check_in_threads(
    checker: ShardChecker, shards: Sequence[str], report: Report
) -> list[list[Problem]]:
    """Check shards in this process, several at once."""
    return in_threads([partial(checker.check, shard) for shard in shards], report)


def verify_run(
    run: Run, report: Report = no_report, check_all: CheckAll = check_in_threads
) -> Verification:
    """Recompute files, hashes, rows, counts, clean tars, lists and views; read all data once.

    What the views stand on is read once more for each. Shards that are not committed yet are
    pending, not problems; files that nothing names are left alone. `check_all` reads the shards,
    here or elsewhere.
    """
    commits = read_commits(run)
    problems = list(run_problems(run, commits))
    aside, faults = read_quarantine(run)
    problems += faults
    for name in snapshot_names(run):
        problems += check_snapshot(run, name, commits)
        problems += check_score_counts(run, name)
        problems += check_compaction(run, name)
    for name in segment_names(run):
        problems += check_segment(run, name, commits)
    problems += check_newest(run)
    sets, faults = read_score_sets(run)
    problems += faults
    for scores in sets:
        problems += check_score_commits(scores)
    names, views = view_records(run), list[View]()
    for name in names:
        view = read_view(run, name)
        if isinstance(view, Problem):
            problems.append(view)
        else:
            views.append(view)
            problems += check_view_files(run, view)
    checked = check_all(ShardChecker(run, views), list(commits), report)
    problems += (fault for faults in checked for fault in faults)
    quarantined = tuple(shard for shard in run.shards if shard in aside and shard not in commits)
    done = commits.keys() | set(quarantined)
    pending = tuple(shard for shard in run.shards if shard not in done)
    scored = tuple(scores.name for scores in sets)
    return Verification(tuple(problems), len(commits), pending, quarantined, tuple(names), scored)


def run_problems(run: Run, commits: Mapping[str, Commit]) -> Iterator[Problem]:
    """Check `recipe.yaml`, what is kept beside it, and each name in `commits/`.

    `run.json` and `input.parquet` were checked as the run was opened.
    """
    if not recipe_is_whole(run):
        yield Problem("recipe.yaml", "is not the recipe that run.json records")
    yield from begun_with_problems(run)
    shards = set(run.shards)
    for name in run.store.list("commits"):
        shard = name.removeprefix("commits/").removesuffix(".json")
        if shard not in shards:
            yield Problem(name, "a commit of a shard that is not in input.parquet")
        elif shard not in commits:
            yield Problem(name, "torn: no commit can be read from it; run clean again")


def begun_with_problems(run: Run) -> Iterator[Problem]:
    """Check what the run keeps of the files that its recipe names: candidates, and lists."""
    yield from _candidate_problems(run)
    digests = {
        SKIP_NAME: run.identity.get("skip"),
        BLOCK_NAME: run.identity.get("screen", {}).get("block_hashes"),
    }
    for name, expected in digests.items():
        if expected is None:
            continue
        try:
            found = hashlib.sha256(run.store.read(name)).hexdigest()
        except FileNotFoundError:
            found = "none: it is gone"
        if found != expected:
            yield Problem(name, "sha256", expected, found)


def _candidate_problems(run: Run) -> Iterator[Problem]:
    try:
        kept = open_candidates(run.store, run.identity)
    except DamagedFile as error:
        yield Problem.of(CANDIDATES, error)
        return
    if kept is not None and kept.identity != run.identity["candidates"]:
        yield Problem(CANDIDATES, "is not what the run began with")


def read_quarantine(run: Run) -> tuple[set[str], list[Problem]]:
    """Name the shards that were put aside, and what is wrong with the records of that."""
    shards, problems = set[str](), list[Problem]()
    known = set(run.shards)
    for name, data in run.store.read_many(run.store.list("quarantine")).items():
        try:
            shard = parse_quarantine(run, name, data).shard
        except DamagedFile as error:
            problems.append(Problem.of(name, error))
            continue
        if shard not in known:
            problems.append(Problem(name, "is of a shard that is not in input.parquet"))
        shards.add(shard)
    return shards, problems


def check_commits(
    run: Run, commits: Mapping[str, Commit], report: Report
) -> dict[str, list[Problem]]:
    """Check committed shards, several at once; return what is wrong by SHARD."""
    found = in_threads(_commit_works(run, commits.values()), report)
    return dict(zip(commits, found, strict=True))


def check_view(run: Run, view: View, commits: Mapping[str, Commit]) -> list[Problem]:
    """Check all files of a view."""
    found = in_threads(_view_works(run, view, commits), no_report)
    return [*check_view_files(run, view), *(fault for faults in found for fault in faults)]


def check_view_files(run: Run, view: View) -> list[Problem]:
    """Check the files of a view that are of more than one shard."""
    found = in_threads(decisions_checks(run, view), no_report)
    return [*check_view_lists(run, view), *(fault for faults in found for fault in faults)]


def in_threads(works: Sequence[Work], report: Report) -> list[list[Problem]]:
    """Do checks, several at once; return what each found, in their order."""
    pool, by_work = ThreadPoolExecutor(THREADS), list[list[Problem]]()
    try:
        for problems in pool.map(lambda work: list(work()), works):
            by_work.append(problems)
            report(len(by_work), len(works))
    finally:
        pool.shutdown(cancel_futures=True)
    return by_work


def _commit_works(run: Run, commits: Iterable[Commit]) -> list[Work]:
    sizes = {item.shard: item.size_bytes for item in run.inputs}
    return [partial(check_commit, run, done, sizes[done.shard]) for done in commits]


def _view_works(run: Run, view: View, commits: Mapping[str, Commit]) -> list[Work]:
    """Return the checks of a view's shards; one that is not committed is no view's fault."""
    own = {shard: done.file("decisions") for shard, done in commits.items()}
    left_out = read_left_out(run, view)
    return [
        partial(check_view_shard, run, view, shard, before, left_out)
        for shard in view.shards
        if (before := own.get(shard.shard)) is not None
    ]
