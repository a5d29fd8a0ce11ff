"""Scoring a finished run: the filter that made it gives its own numbers again, once a shard."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.checkpoints import locate
from models.guests.picture import Prepared
from models.roles.filter import Filter
from models.scorers.blip import BlipScorer
from models.scorers.scorer import TextScores
from pipeline.clean.prepare import ExecutionConfig
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from pipeline.views.score import ShardScorer
from shards.inputs.shard import InputChanged
from shards.query.query import connect
from shards.run.attempt import Ending, read_attempts
from shards.run.commit import read_commits
from shards.run.run import Run
from shards.run.scoring.score_set import ScoreSet, create_score_set, with_scores
from shards.run.snapshot import open_snapshot, write_snapshot
from shards.run.verify.run import verify_run
from tests.support.tars import read_members
from tests.support.toy_run import clean_world, write_tar

PACE = ExecutionConfig(batch_size=3)
DIFFERENCE = """
SELECT name, max(abs(value - CASE name WHEN 'itm' THEN itm WHEN 'itc' THEN itc ELSE itm_logit END)),
  count(*) FROM texts JOIN scores USING (shard, index, text_no) GROUP BY name ORDER BY name
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_toy_world(folder / "web", ToyWorldConfig(samples=12, samples_per_shard=4))
    clean_world(folder / "web", folder / "run")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    copied = Run.open(str(shutil.copytree(made / "run", tmp_path / "run")))
    write_snapshot(copied)  # whose list of clean tars has absolute paths
    return copied


@pytest.fixture(scope="module")
def filter_() -> Filter:
    return Filter.load(locate.SHIPPED["tiny-filter"], dtype="fp32", device="cpu")


def quiet(_samples: int, _bytes: int) -> None:
    """Hear of progress."""


def begin(run: Run, scores: Sequence[str] = Filter.scores) -> ScoreSet:
    return create_score_set(run, "again", scores, {"digest": "d"}, {})


def test_the_run_s_own_filter_says_the_same_again(run: Run, filter_: Filter) -> None:
    scores = begin(run)
    heard: list[int] = []
    scorer = ShardScorer(scores, BlipScorer(filter_), PACE, {"device": "cpu"})
    for shard in run.inputs:
        done = scorer.score(shard, lambda samples, _: heard.append(samples))
        assert done.environment["batch_size"] == 3
        assert scorer.score(shard, quiet) == done  # it is there
        assert len(read_attempts(scores.record, shard.shard)) == 1
    assert heard == [3, 4] * 3
    shards = with_scores(run, open_snapshot(run).shards)
    with connect(run, shards, ["texts", "scores"]) as connection:
        rows = connection.execute(DIFFERENCE).fetchall()
        ((texts,),) = connection.execute("SELECT count(*) FROM texts").fetchall()
    assert [(name, count) for name, _, count in rows] == [(n, texts) for n in sorted(Filter.scores)]
    assert all(difference < 1e-5 for _, difference, _ in rows)
    assert verify_run(run).problems == ()


@dataclass
class Length:
    """A scorer of one's own: how long a text is, in widths of its picture."""

    fails: Exception | None = None
    digest: str = "length"
    scores: tuple[str, ...] = ("b", "a")
    prepare_key: str = "width"

    def prepare(self, picture: Image.Image) -> Prepared:
        return Prepared(picture.width, 8)

    def score(
        self, batch: Sequence[Prepared], texts: Sequence[Sequence[str]]
    ) -> list[list[TextScores]]:
        if self.fails:
            raise self.fails
        return [
            [TextScores((len(text) / one.content, 1.0), 1, False) for text in own]
            for one, own in zip(batch, texts, strict=True)
        ]


def test_any_scorer_serves(run: Run) -> None:
    scores = begin(run, ["a", "b"])
    for shard in run.inputs:
        ShardScorer(scores, Length(), PACE, {}).score(shard, quiet)
    asked = (
        "SELECT count(*) FILTER (name = 'a' AND value = 1 OR "
        "name = 'b' AND value = (len(text) / width)::FLOAT), count(*) "
        "FROM scores JOIN texts USING (shard, index, text_no) JOIN samples USING (shard, index)"
    )
    shards = with_scores(run, open_snapshot(run).shards)
    with connect(run, shards, ["samples", "texts", "scores"]) as connection:
        ((right, count),) = connection.execute(asked).fetchall()
    assert right == count > 0
    assert verify_run(run).problems == ()


@pytest.mark.parametrize("how", ["another", "gone", "fewer"])
def test_another_input_is_refused(run: Run, tmp_path: Path, how: str) -> None:
    first = run.inputs[0]
    members = dict(read_members(first.url))
    pictures = [name for name in members if not name.endswith((".txt", ".json"))]
    if how == "another":
        members[pictures[0]] = members[pictures[1]]
    elif how == "fewer":
        key = pictures[-1].rpartition(".")[0]
        members = {name: data for name, data in members.items() if not name.startswith(key)}
    else:
        members[pictures[0]] = b""
    write_tar(tmp_path / "other.tar", members)
    scores = begin(run, ["a", "b"])
    changed = replace(first, url=str(tmp_path / "other.tar"))
    with pytest.raises(InputChanged, match="changed since it was cleaned"):
        ShardScorer(scores, Length(), PACE, {}).score(changed, quiet)
    (attempt,) = read_attempts(scores.record, first.shard)
    assert attempt.ending == Ending.FAILED
    assert read_commits(scores.record) == {}
    assert scores.record.store.list("data") == []


def test_a_batch_that_the_gpu_cannot_hold_is_halved(run: Run) -> None:
    class Small(Length):
        def score(self, batch: Any, texts: Any) -> Any:
            if len(batch) > 1:
                raise torch.OutOfMemoryError
            return super().score(batch, texts)

    scores = begin(run, ["a", "b"])
    done = ShardScorer(scores, Small(), PACE, {}).score(run.inputs[0], quiet)
    assert done.files[0].rows == 2 * sum(texts.given for texts in done.counts.texts.values())
