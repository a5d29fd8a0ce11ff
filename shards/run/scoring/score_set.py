"""Scores of a run's texts that were made later, or elsewhere: `scores/NAME/`, with its own commits.

A set of scores is kept as a run is, below the run that it scores: `run.json` says who scored, and a
commit a shard, created only if absent, names one file of scores. So attempts, kills and two writers
at once are as safe as they are in a cleaning. The content of such a file, without the numbers, are
the texts that it scores: their hash stands in its record, and other texts make it stale.
"""

import dataclasses
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from shards.errors import DamagedFile, UsageError
from shards.run.commit import Commit, FileRecord, read_commit, read_commits
from shards.run.run import Run, as_json, differences, read_identity
from shards.run.snapshot import SnapshotShard
from shards.schema import SAMPLES, SCORES, TEXTS
from shards.store import Store

# Names that an expression reads otherwise, or that DuckDB does.
_TAKEN = {*SAMPLES.names, *TEXTS.names, *SCORES.names, "own"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class ScoresError(UsageError):
    """Scores that are not there, or do not fit the run."""


@dataclass(frozen=True, slots=True)
class ScoreSet:
    """The scores that one scorer gave; `record` is its folder, kept as a run is."""

    name: str
    scores: tuple[str, ...]
    run: Run
    record: Run

    @property
    def qualified(self) -> tuple[str, ...]:
        """The names of its scores as people write them: SET.SCORE."""
        return tuple(f"{self.name}.{score}" for score in self.scores)


def own_scorers(run: Run) -> dict[str, tuple[str, ...]]:
    """Name the scores that a run's own scorers gave beside the columns of its texts, by scorer."""
    said = run.identity.get("score") or {}
    sections = said if isinstance(said, list) else [said]
    return {each["name"]: tuple(each["scores"]) for each in sections if "scores" in each}


def has_itm(run: Run) -> bool:
    """Whether one of a run's own scorers filled the columns of its texts."""
    said = run.identity.get("score") or {}
    sections = said if isinstance(said, list) else [said]
    return any("scores" not in section for section in sections)


def check_score_name(name: str, what: str = "a set of scores") -> None:
    """Raise ScoresError for what cannot name a set, or a score of one."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ScoresError(
            f"{name!r} cannot name {what}: expected 1 to 64 of the characters A-Z a-z 0-9 _, no "
            "digit first, and no word of the language (and, or, not, in, is …)"
        )
    if what != "a score" and name.lower() in _TAKEN:
        raise ScoresError(f"{name!r} is a column of the run's own tables; choose another name")


def create_score_set(
    run: Run, name: str, scores: Sequence[str], scorer: Mapping[str, Any], about: Mapping[str, Any]
) -> ScoreSet:
    """Begin a set of scores, or go on with it; ScoresError where another scorer has the name.

    `scorer` is what decides the numbers: a model's digest, or that of a file.
    """
    check_score_name(name)
    if name in own_scorers(run):
        raise ScoresError(f"{name!r} is one of the run's own scorers; choose another name")
    for score in scores:
        check_score_name(score, "a score")
    identity = {
        "kind": "scores",
        "of": run.fingerprint,
        "name": name,
        "scores": list(scores),
        "scorer": dict(scorer),
    }
    store = Store(run.store.url(f"scores/{name}"))
    if store.exists("run.json"):
        differing = "; ".join(differences(read_identity(store), as_json(identity)))
        if differing:
            raise ScoresError(
                f"{store.url()} holds other scores; differing (recorded -> given): {differing}. "
                "Choose another name"
            )
    record = Run.create(store, "", identity, about, run.inputs)
    return ScoreSet(name, tuple(scores), run, record)


def open_score_set(run: Run, name: str) -> ScoreSet:
    """Open a set of scores; raises ScoresError where there is none, and DamagedFile."""
    names = score_set_names(run)
    if name not in names:
        nearest = get_close_matches(name, names, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
        listed = ", ".join(names) or "none"
        raise ScoresError(f"{run.store.url()} has no scores {name!r}{hint} there are: {listed}")
    record = Run.read(Store(run.store.url(f"scores/{name}")))
    where, scores = record.store.url("run.json"), record.identity.get("scores")
    if record.identity.get("of") != run.fingerprint or record.identity.get("name") != name:
        expected = f"scores {name!r} of the run {run.fingerprint}"
        actual = f"{record.identity.get('name')!r} of {record.identity.get('of')}"
        raise DamagedFile(where, expected, actual)
    if not (isinstance(scores, list) and all(isinstance(score, str) for score in scores)):
        raise DamagedFile(where, "a list of names as scores", scores)
    return ScoreSet(name, tuple(scores), run, record)


def score_set_names(run: Run) -> list[str]:
    """Name the sets of scores that are there, whole or not yet, sorted."""
    store = run.store
    store.fs.invalidate_cache()
    try:
        paths = store.fs.ls(store.path("scores"), detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    folders = sorted(path.rstrip("/").rpartition("/")[2] for path in paths)
    names = [name for name in folders if _NAME.fullmatch(name)]
    there = store.read_many([f"scores/{name}/run.json" for name in names])
    return [name for name in names if f"scores/{name}/run.json" in there]


def texts_content(files: Iterable[FileRecord]) -> str:
    """Return the hash of a shard's texts, without the models' numbers where that is known."""
    texts = next(file for file in files if file.table == "texts")
    return texts.content_sha256 or texts.sha256


def with_scores(
    run: Run, shards: Sequence[SnapshotShard], names: Iterable[str] | None = None
) -> tuple[SnapshotShard, ...]:
    """Add to each shard its files of scores, of these sets (default: of all), as far as they go.

    Raises ScoresError for scores of texts that the shard no longer has.
    """
    listed: dict[str, list[FileRecord]] = {shard.shard: list(shard.files) for shard in shards}
    own = own_scorers(run)  # whose files are the shards' already
    for name in score_set_names(run) if names is None else names:
        if name in own:
            continue
        for shard, done in read_commits(open_score_set(run, name).record).items():
            if shard in listed:
                listed[shard].append(scores_file(name, done, listed[shard]))
    return tuple(dataclasses.replace(shard, files=tuple(listed[shard.shard])) for shard in shards)


def scores_file(name: str, done: Commit, facts: Iterable[FileRecord]) -> FileRecord:
    """Return a shard's file of scores by its name in the run; `facts` are the files scored.

    Raises ScoresError if these hold other texts by now.
    """
    file = next(file for file in done.files if file.table == "scores")
    if file.content_sha256 != texts_content(facts):
        raise ScoresError(
            f"scores {name!r} of shard {done.shard} are of other texts than the run has now; "
            "`capfilt verify RUN --repair` sets them aside, then score it again"
        )
    return file.model_copy(update={"name": f"scores/{name}/{file.name}"})


def scores_of_shard(run: Run, facts: Commit) -> list[FileRecord]:
    """Name the files of scores of one shard, of all sets that have come to it."""
    files = []
    for name in score_set_names(run):
        done = read_commit(open_score_set(run, name).record, facts.shard)
        files += [] if done is None else [scores_file(name, done, facts.files)]
    return files
