"""Repair: what can be mended without a model is mended; the rest is set aside, to be done again.

Nothing is deleted. What is set aside lies under `set_aside/`, and counts as not being there: a
shard without a commit is pending, and `capfilt clean` does it again.
"""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from shards.errors import CapfiltError, DamagedFile
from shards.run.commit import Commit, read_commits
from shards.run.run import Run, recipe_is_whole
from shards.run.segment import Committed, read_committed, segment_names
from shards.run.snapshot import (
    newest_snapshot_id,
    open_snapshot,
    write_clean_list,
    write_snapshot,
)
from shards.run.verify.lists import (
    check_compaction,
    check_newest,
    check_score_counts,
    check_segment,
    check_snapshot,
    snapshot_names,
)
from shards.run.verify.problem import Problem
from shards.run.verify.run import (
    Report,
    begun_with_problems,
    check_commits,
    check_view,
    no_report,
    read_quarantine,
    run_problems,
)
from shards.run.verify.scores import check_score_commits, check_scores, read_score_sets
from shards.run.verify.views import check_view_lists, read_view, view_records
from shards.run.view import read_view_record
from shards.schema import SchemaError
from shards.store import Store


class RepairError(CapfiltError, ValueError):
    """A run so broken that it is more likely out of reach than damaged."""


@dataclass(slots=True)
class Repair:
    """What was done, one line each, and what is left: shards to clean again, views to judge
    and scores to make again.

    `waiting` are views that will be whole if cleaning again makes the same data as before;
    `begun_with` are files that `capfilt clean`, given the same recipe, writes again. With
    `begin_again`, what the run was created with must be written again before the rest is looked at.
    """

    actions: list[str] = field(default_factory=list)
    redo: list[str] = field(default_factory=list)
    judge_again: list[str] = field(default_factory=list)
    score_again: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    begun_with: list[str] = field(default_factory=list)
    begin_again: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is left to do."""
        left = (self.redo, self.judge_again, self.score_again, self.waiting, self.begun_with)
        return not (any(left) or self.begin_again)


def repair(store: Store, report: Report = no_report) -> Repair:
    """Mend a run that may not even open; raises NotARun, RepairError.

    A damaged `run.json` or `input.parquet` is set aside: `capfilt clean`, given the same recipe and
    inputs, knows the run by its commits, and writes them again.
    """
    try:
        run = Run.read(store)
    except DamagedFile as error:
        begun, name = Repair(begin_again=True), error.where.rpartition("/")[2]
        _set_aside(store, name, [Problem.of(name, error)], begun)
        return begun
    return repair_run(run, report)


def repair_run(run: Run, report: Report = no_report) -> Repair:
    """Check all that `verify_run` does, and mend or set aside what is wrong.

    Meant for a run that no one works on. Raises RepairError if all data files are gone.
    """
    done, commits = Repair(), read_commits(run)
    _check_reach(run, commits)
    _mend_recipe(run, done)
    _mend_begun_with(run, done)
    _mend_commits(run, commits, done, report)
    aside = _mend_quarantine(run, commits, done)
    for name in snapshot_names(run):
        for problem in [*check_score_counts(run, name), *check_compaction(run, name)]:
            _set_aside(run.store, problem.where, [problem], done)
        _set_aside(run.store, name, list(check_snapshot(run, name, commits)), done)
    for name in segment_names(run):
        _set_aside(run.store, name, list(check_segment(run, name, commits)), done)
    if commits and commits.keys() | aside >= set(run.shards):
        _mend_newest(run, done)
    else:
        _mend_partial(run, done)
    _mend_scores(run, commits, done)
    for name in view_records(run):
        _mend_view(run, name, commits, done)
    return done


def set_snapshots_aside(run: Run, newest: str, known: Committed | None = None) -> list[str]:
    """Move the snapshots of commits that are no more out of the way; give a line for each.

    A shard that was done again has other data where another version made it first, or in bf16.
    `newest` is the id of the one just written, which stays; `known` are commits read before.
    """
    done = Repair()
    # read first: one written when the commits have been read is newer than they
    others = [name for name in snapshot_names(run) if newest not in name]
    if not others:  # as mostly: the commits need not be read again
        return []
    listed = run.store.read_many(others)
    commits = read_committed(run, known).commits
    for name, data in listed.items():
        with suppress(SchemaError):  # of a newer capfilt, which cannot be judged here
            problems = list(check_snapshot(run, name, commits))
            if _is_still(run.store, name, data):
                _set_aside(run.store, name, problems, done)
    return done.actions


def _check_reach(run: Run, commits: dict[str, Commit]) -> None:
    named = sum(len(done.files) for done in commits.values())
    if named and not run.store.list("data"):
        raise RepairError(
            f"{run.store.url('data')}: none of the {named} files that commits name is there; if a "
            "disk is not mounted, mount it. Nothing is set aside. To do the whole run again, clean "
            "into another output folder"
        )


def _mend_commits(run: Run, commits: dict[str, Commit], done: Repair, report: Report) -> None:
    """Set aside what is no commit, and commits whose files are not as they say."""
    shards = set(run.shards)
    for problem in run_problems(run, commits):
        if problem.where.startswith("commits/") and _set_aside(
            run.store, problem.where, [problem], done
        ):
            shard = PurePosixPath(problem.where).stem
            done.redo += [shard] if shard in shards else []
    for shard, problems in check_commits(run, commits, report).items():
        if _set_aside(run.store, f"commits/{shard}.json", problems, done):
            done.redo.append(shard)
            del commits[shard]


def _mend_recipe(run: Run, done: Repair) -> None:
    if not recipe_is_whole(run) and run.recipe_yaml is not None:
        run.store.put("recipe.yaml", run.recipe_yaml.encode())
        done.actions.append("wrote recipe.yaml: it was not the recipe that run.json records")


def _mend_begun_with(run: Run, done: Repair) -> None:
    """Set aside candidates and lists that are not what the run began with; or they are gone."""
    for problem in begun_with_problems(run):
        _set_aside(run.store, problem.where, [problem], done)
        done.begun_with.append(problem.where)


def _mend_quarantine(run: Run, commits: dict[str, Commit], done: Repair) -> set[str]:
    """Set aside torn records of shards put aside; give the shards with a whole one."""
    aside, problems = read_quarantine(run)
    for problem in problems:
        shard = PurePosixPath(problem.where).stem
        pending = shard in run.shards and shard not in commits
        if _set_aside(run.store, problem.where, [problem], done) and pending:
            done.redo.append(shard)
    return aside


def _mend_newest(run: Run, done: Repair) -> None:
    """Write the snapshot and its lists again from the commits, if anything is amiss with them."""
    problems = list(check_newest(run))
    if problems or newest_snapshot_id(run) is None:
        why = str(problems[0]) if problems else "all is committed, and there was none yet"
        snapshot = write_snapshot(run)
        done.actions.append(f"wrote snapshot {snapshot.id}, snapshot.json and clean.txt: {why}")


def _mend_partial(run: Run, done: Repair) -> None:
    """Mend the lists of a run with shards pending, as far as its newest snapshot is whole."""
    problems = list(check_newest(run))
    broken = [problem for problem in problems if problem.where == "snapshot.json"]
    if broken:
        for name in ("snapshot.json", "clean.txt"):
            _set_aside(run.store, name, broken, done)
    elif problems:
        write_clean_list(run, "clean.txt", open_snapshot(run).shards)
        done.actions.append(f"wrote clean.txt: {problems[0].found}")


def _mend_view(run: Run, name: str, commits: dict[str, Commit], done: Repair) -> None:
    view = read_view(run, name)
    if isinstance(view, Problem):
        if done.redo and _lacks_snapshot(run, name):
            done.waiting.append(name)
        elif _set_aside(run.store, f"views/{name}/view.json", [view], done):
            done.judge_again.append(name)
        return
    clean_list, broken = f"views/{name}/clean.txt", list[Problem]()
    for problem in check_view_lists(run, view):
        if problem.where == clean_list:
            write_clean_list(run, clean_list, view.shards)
            done.actions.append(f"wrote {clean_list}: {problem.found}")
        else:
            broken.append(problem)
    problems = broken or check_view(run, view, commits)
    if _set_aside(run.store, f"views/{name}/view.json", problems, done):
        done.judge_again.append(name)


def _mend_scores(run: Run, commits: dict[str, Commit], done: Repair) -> None:
    """Set aside commits of scores that are torn, stale, or not as they say: they are made again."""
    sets, problems = read_score_sets(run)
    for problem in problems:
        if _set_aside(run.store, problem.where, [problem], done):
            done.score_again.append(problem.where.split("/")[1])
    for scores in sets:
        broken = {problem.where: [problem] for problem in check_score_commits(scores)}
        for facts in commits.values():
            if faults := list(check_scores(scores, facts)):
                broken[f"scores/{scores.name}/commits/{facts.shard}.json"] = faults
        if [name for name, faults in broken.items() if _set_aside(run.store, name, faults, done)]:
            done.score_again.append(scores.name)


def _lacks_snapshot(run: Run, name: str) -> bool:
    """Check whether all that is wrong with a view may be that its snapshot is not there."""
    try:
        record = read_view_record(run, name)
    except DamagedFile:
        return False
    return record is not None and not run.store.exists(f"snapshots/{record.snapshot}.parquet")


def _set_aside(store: Store, name: str, problems: Sequence[Problem], done: Repair) -> bool:
    """Move a file under `set_aside/`, unless nothing is wrong with it, or another mends it now."""
    if not problems:
        return False
    try:
        data = store.read(name)
    except FileNotFoundError:
        return False
    path = PurePosixPath("set_aside", name)
    there = str(path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}"))
    store.put(there, data)
    if not _is_still(store, name, data):
        store.delete(there)
        return False
    store.delete(name)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    done.actions.append(f"moved {name} to {there}: {problems[0].found}{more}")
    return True


def _is_still(store: Store, name: str, data: bytes) -> bool:
    """Check that no other command has changed a file meanwhile, or set it aside."""
    try:
        return store.read(name) == data
    except FileNotFoundError:
        return False
