"""Sets of scores, checked: each rule between their rows, their commits and the run's texts."""

from pathlib import Path
from typing import Any

import pytest

from shards.run.commit import read_commits
from shards.run.data import read_data
from shards.run.record import read_record, write_record
from shards.run.run import Run
from shards.run.scoring.score_set import ScoreSet, create_score_set, scores_file
from shards.run.snapshot import write_snapshot
from shards.run.verify.run import verify_run
from shards.run.verify.scores import read_score_sets
from shards.schema import SCORES, arrow_rows
from shards.writer import commit_scores
from tests.shards.conftest import MakeRun


@pytest.fixture
def run(tmp_path: Path, make_run: MakeRun) -> Run:
    run = make_run(str(tmp_path / "run"))
    write_snapshot(run)
    return run


def score(run: Run, change: Any = None) -> ScoreSet:
    """Score all texts; `change` has the rows of the first shard."""
    scores = create_score_set(run, "clip", ["p"], {}, {})
    for number, facts in enumerate(read_commits(run).values()):
        texts = facts.file("texts")
        assert texts is not None
        rows = read_data(run, texts, ["shard", "index", "text_no"]).to_pylist()
        rows = [row | {"scorer": "clip", "name": "p", "value": 0.5} for row in rows]
        if change is not None and not number:
            rows = change(rows)
        commit_scores(scores, facts, arrow_rows(rows, SCORES), f"{number:016x}", {}, "")
    return scores


def problems_of(run: Run) -> list[str]:
    return [str(problem) for problem in verify_run(run).problems]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, None),
        (lambda rows: rows[1:], None),  # a score may be missing
        (lambda rows: [row | {"shard": "x"} for row in rows], "rows of other shards"),
        (lambda rows: [row | {"scorer": "x"} for row in rows], "rows of another scorer"),
        (lambda rows: [row | {"name": "q"} for row in rows], "scores that are not p"),
        (lambda rows: rows[::-1], "not in the order of index, text_no, scorer and name"),
        (lambda rows: [rows[0], *rows], "not in the order of index, text_no, scorer and name"),
        (lambda rows: [*rows, rows[-1] | {"index": 99}], "texts that the run does not have"),
    ],
)
def test_rules_between_rows(run: Run, change: Any, message: str | None) -> None:
    score(run, change)
    told = problems_of(run)
    assert len(told) == (message is not None)
    assert message is None or message in told[0]


def test_what_is_wrong_with_files_and_commits(run: Run) -> None:
    scores = score(run)
    first, second, _ = run.shards
    done = read_commits(scores.record)[first]
    file = scores_file("clip", done, read_commits(run)[first].files)
    run.store.delete(file.name)
    run.store.put(f"scores/clip/commits/{second}.json", b"{")
    run.store.put("scores/clip/commits/strange.json", b"{}")
    assert sorted(problems_of(run)) == [
        f"scores/clip/commits/{second}.json: torn: no commit can be read from it; score it again",
        "scores/clip/commits/strange.json: scores of a shard that is not in input.parquet",
        f"{file.name}: the file is gone",
    ]


def test_a_commit_of_another_set_or_other_texts(run: Run) -> None:
    scores = score(run)
    name = f"commits/{run.shards[0]}.json"
    record = read_record(scores.record.store.read(name), name)
    for change, message in (
        ({"fingerprint": "0"}, "fingerprint: expected"),
        ({"files": []}, "its files are not one of scores"),
        ({"files": [record["files"][0] | {"content_sha256": "0"}]}, "are of other texts"),
    ):
        scores.record.store.put(name, write_record(record | change))
        told = problems_of(run)
        assert len(told) == 1
        assert message in told[0]


def test_a_set_that_cannot_be_opened(run: Run) -> None:
    scores = score(run)
    scores.record.store.put("run.json", b"{}")
    sets, problems = read_score_sets(run)
    assert (sets, [problem.where for problem in problems]) == ([], ["scores/clip/run.json"])
    assert len(problems_of(run)) == 1
