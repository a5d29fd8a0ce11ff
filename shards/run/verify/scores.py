"""One set of scores, checked: its commits, its files, and that each row is of a text of the run."""

from collections.abc import Iterator

from shards.errors import DamagedFile
from shards.run.commit import Commit, FileRecord, data_name, read_commit, read_commits
from shards.run.data import read_data
from shards.run.run import NotARun, Run
from shards.run.scoring.score_set import (
    ScoresError,
    ScoreSet,
    open_score_set,
    score_set_names,
    scores_file,
)
from shards.run.verify.problem import Problem
from shards.run.verify.rules import score_complaints
from shards.run.verify.shard import check_file
from shards.schema import SchemaError


def read_score_sets(run: Run) -> tuple[list[ScoreSet], list[Problem]]:
    """Open all sets of scores; say what is wrong with those that cannot be."""
    sets, problems = list[ScoreSet](), list[Problem]()
    for name in score_set_names(run):
        try:
            sets.append(open_score_set(run, name))
        except (ScoresError, NotARun) as error:
            problems.append(Problem(f"scores/{name}/run.json", str(error)))
        except DamagedFile as error:
            problems.append(Problem.of(f"scores/{name}/run.json", error))
    return sets, problems


def check_score_commits(scores: ScoreSet) -> Iterator[Problem]:
    """Check that each file in a set's `commits/` is the commit of a shard of the run."""
    done, shards = read_commits(scores.record), set(scores.run.shards)
    for listed in scores.record.store.list("commits"):
        shard = listed.removeprefix("commits/").removesuffix(".json")
        name = f"scores/{scores.name}/{listed}"
        if shard not in shards:
            yield Problem(name, "scores of a shard that is not in input.parquet")
        elif shard not in done:
            yield Problem(name, "torn: no commit can be read from it; score it again")


def check_scores(scores: ScoreSet, facts: Commit) -> Iterator[Problem]:
    """Check the scores of one committed shard, if they are there."""
    done = read_commit(scores.record, facts.shard)
    if done is None:
        return
    name = f"scores/{scores.name}/commits/{done.shard}.json"
    if done.fingerprint != scores.record.fingerprint:
        yield Problem(name, "fingerprint", scores.record.fingerprint, done.fingerprint)
    expected = data_name("scores", done.shard, done.attempt)
    if [file.name for file in done.files] != [expected]:
        yield Problem(name, "its files are not one of scores under this attempt's name")
        return
    try:
        file = scores_file(scores.name, done, facts.files)
    except ScoresError as error:
        yield Problem(name, str(error))
        return
    faults = list(check_file(scores.run, file))
    yield from faults or _row_problems(scores, facts, file)


def _row_problems(scores: ScoreSet, facts: Commit, file: FileRecord) -> Iterator[Problem]:
    texts = next(known for known in facts.files if known.table == "texts")
    try:
        rows = read_data(scores.run, file)
    except SchemaError as error:
        yield Problem(file.name, str(error))
        return
    except DamagedFile as error:
        yield Problem.of(file.name, error)
        return
    if len(rows) != file.rows:
        yield Problem(file.name, "rows", str(file.rows), str(len(rows)))
    try:
        known = read_data(scores.run, texts, ["index", "text_no"])
    except (OSError, SchemaError, DamagedFile):
        return  # the check of the run's own says so
    faults = score_complaints({scores.name: scores.scores}, facts.shard, rows, known)
    yield from (Problem(file.name, what) for what in faults)
