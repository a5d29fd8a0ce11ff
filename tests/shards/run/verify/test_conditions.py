"""Views by conditions and added scores: right ones pass, and changed ones do not."""

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.views.import_scores import import_scores
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.query.query import connect
from shards.run.data import read_data
from shards.run.record import read_record, write_record
from shards.run.repair import repair
from shards.run.run import Run
from shards.run.snapshot import open_snapshot, to_parquet
from shards.run.verify.garbage import find_garbage
from shards.run.verify.rules import recount
from shards.run.verify.run import verify_run
from shards.run.view import open_view
from shards.schema import DECISIONS
from tests.pipeline.views.test_rejudge import made_run

BOTH = {"web": 0.4, "synthetic": 0.2}
REQUESTS: list[dict[str, Any]] = [
    {"where": "itm >= 0.5 and clip.p >= 0.2"},
    {"where": "not clip.p < 0.3 or clip.p is None or origin == 'web'"},
    {"where": "(itm + clip.p) / 2 >= 0.5 and text_words >= 2 and 'cat' in text"},
    {"where": "key in ('k1', 'k2', 'k7') or 0.1 < clip.p <= 0.7 and text_no != 2"},
    {"by": "clip.p", "threshold": BOTH},
    {"by": "clip.p", "threshold": {"web": 0.5}, "keep_fraction": {"synthetic": 0.2}},
    {"by": "clip.p", "where": "text_chars > 4", "keep_fraction": {"web": 0.3}},
    {"prefer": ("web", "synthetic")},
    {"by": "clip.p", "threshold": BOTH, "prefer": ("synthetic",)},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of texts refused for all reasons, and scores of most of them, some not finite."""
    folder = tmp_path_factory.mktemp("made")
    run = made_run(str(folder / "run"), shards=2, samples=40)
    with connect(run, open_snapshot(run).shards) as connection:
        asked = "SELECT shard, index, text_no, (hash(index, text_no) % 100) / 100 AS p FROM texts"
        rows = connection.sql(asked).to_arrow_table()
    keep = [number for number in range(len(rows)) if number % 7]
    scored = rows.take(pa.array(keep)).to_pylist()
    for number in range(0, len(scored), 9):
        scored[number]["p"] = float("nan")
    pq.write_table(pa.Table.from_pylist(scored), folder / "clip.parquet")
    import_scores(run, str(folder / "clip.parquet"))
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    return Run.open(str(shutil.copytree(made, tmp_path / "run")))


@pytest.mark.parametrize("asked", REQUESTS, ids=str)
def test_two_evaluators_agree(run: Run, asked: dict[str, Any]) -> None:
    view, _ = rejudge(run, ViewRequest("v", **asked), open_snapshot(run), lambda _: None)
    kept, of = (
        sum(getattr(s.counts, name) for s in view.shards) for name in ("kept", "samples_in")
    )
    assert 0 < kept < of
    checked = verify_run(run)
    assert (checked.problems, checked.views, checked.scores) == ((), ("v",), ("clip",))


def rewritten(run: Run, change: Any) -> None:
    """Change decisions of a view's first shard, and their record, as if written so."""
    view = open_view(run, "v")
    first, *others = view.shards
    old = first.file("decisions")
    facts = {name: read_data(run, first.file(name)) for name in ("samples", "texts")}
    every = read_data(run, old).to_pylist()  # of all shards that share the file
    rows = [row for row in every if row["shard"] == first.shard]
    change(rows)
    every = [*rows, *(row for row in every if row["shard"] != first.shard)]
    path = Path(run.store.path(old.name))
    pq.write_table(pa.Table.from_pylist(every, DECISIONS), path)
    new = old.model_copy(
        update={
            "size_bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    )
    counts = recount(**facts, decisions=pa.Table.from_pylist(rows, DECISIONS))
    shards = [dataclasses.replace(first, counts=counts), *others]
    data = to_parquet(
        [
            dataclasses.replace(shard, files=tuple(new if f == old else f for f in shard.files))
            for shard in shards
        ]
    )
    assert view.record is not None
    run.store.put(view.record.shards, data)
    record = view.record.as_json() | {"shards_sha256": hashlib.sha256(data).hexdigest()}
    run.store.put("views/v/view.json", write_record(record))
    assert read_record(run.store.read("views/v/view.json"), "") == record


def flip_first(reason: str, to: str) -> Any:
    def change(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["reason"] == reason)
        row |= {"reason": to, "keep": to == "kept"}

    return change


@pytest.mark.parametrize(
    ("asked", "reason", "to", "message"),
    [
        (REQUESTS[0], "score_below_threshold", "kept", "not decided by the view's rules: 1 ("),
        (REQUESTS[0], "kept", "score_below_threshold", "not decided by the view's rules: 1 ("),
        (REQUESTS[0], "score_not_finite", "kept", "not decided by the view's rules: 1 ("),
        (REQUESTS[0], "duplicate_text", "kept", "not decided by the view's rules: 1 ("),
        (REQUESTS[0], "kept", "not_preferred", "not decided by the view's rules: 1 ("),
        (REQUESTS[4], "kept", "itm_below_threshold", "not decided by the view's rules: 1 ("),
        (REQUESTS[8], "not_preferred", "kept", "origin that comes first: 1"),
    ],
)
def test_a_changed_decision_is_found(
    run: Run, asked: dict[str, Any], reason: str, to: str, message: str
) -> None:
    rejudge(run, ViewRequest("v", **asked), open_snapshot(run), lambda _: None)
    rewritten(run, list)  # nothing
    assert verify_run(run).problems == ()
    rewritten(run, flip_first(reason, to))
    assert [message in problem.what for problem in verify_run(run).problems] == [True]


def test_scores_that_are_lost_or_changed(run: Run) -> None:
    rejudge(run, ViewRequest("v", where="clip.p > 0.5"), open_snapshot(run), lambda _: None)
    name = next(name for name in run.store.list("scores/clip/data") if "/s1-" in name)
    whole = run.store.read(name)
    run.store.put(name, whole[:-1] + b"x")
    wheres = {problem.where for problem in verify_run(run).problems}
    assert name in wheres
    mended = repair(run.store)
    assert (mended.score_again, mended.judge_again) == (["clip"], ["v"])
    assert "moved scores/clip/commits/s1.json to set_aside/scores/" in mended.actions[0]
    assert verify_run(run).problems == ()  # a set that is not whole yet is no fault
    garbage = find_garbage(run, 0, abandoned=True)
    assert [leftover.name for leftover in garbage.old if leftover.kind == "scores"] == [name]
    assert garbage.unknown == ()
