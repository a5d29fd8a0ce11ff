"""What is compared: the kept pictures of a view, or all that have a hash."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.views.dedup.candidates import hash_kind, read_candidates
from pipeline.views.exclude import ExclusionRequest, exclude
from pipeline.views.import_scores import import_scores
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.run.run import Run
from shards.run.snapshot import open_snapshot
from shards.run.view import open_view
from shards.schema import GROUPS
from tests.support.hashed_run import Picture, hashed_run, stranger


@pytest.fixture
def run(tmp_path: Path) -> Run:
    first = [
        Picture("a", "a", stranger(0), side=50, itm=0.6),
        Picture("low", "low", stranger(1), itm=0.1),
        Picture("bad", "bad", None, status="rejected"),
    ]
    return hashed_run(tmp_path / "run", first, [Picture("b", "b", stranger(2), side=70, itm=0.8)])


def test_only_kept_pictures_can_be_kept(run: Run) -> None:
    kept = read_candidates(run, open_view(run), "first")
    assert list(zip(kept.shard, kept.index, strict=True)) == [(0, 0), (1, 0)]
    everything = read_candidates(run, open_view(run), None, first=7)
    assert everything.shard.tolist() == [7, 7, 7, 8]
    assert everything.hashed.tolist() == [True, True, False, True]


def test_the_better_picture_is_worth_more(run: Run) -> None:
    view = open_view(run)
    assert read_candidates(run, view, "largest").worth.tolist() == [2500, 4900]
    assert read_candidates(run, view, "score").worth == pytest.approx([0.6, 0.8])
    assert read_candidates(run, view, "first").worth.tolist() == [0, 0]


def test_the_score_is_the_one_that_the_view_judges_by(run: Run, tmp_path: Path) -> None:
    places = {"shard": ["000", "000", "001"], "index": [0, 1, 0], "text_no": [0, 0, 0]}
    pq.write_table(pa.table(places | {"prob": [0.25, 0.75, 0.5]}), tmp_path / "other.parquet")
    import_scores(run, str(tmp_path / "other.parquet"), None, lambda *_: None)
    request = ViewRequest("v", {"web": 0.0}, by="other.prob")
    view, _ = rejudge(run, request, open_snapshot(run), lambda _: None)
    assert read_candidates(run, view, "score").worth.tolist() == [0.25, 0.75, 0.5]


def test_hashes_are_those_of_the_table(run: Run) -> None:
    candidates = read_candidates(run, open_view(run), "first")
    assert candidates.hashes.view(np.uint8).tobytes() == stranger(0) + stranger(2)


def test_in_a_run_that_only_screens_what_can_be_read_is_kept(tmp_path: Path) -> None:
    pictures = [Picture("a", "a", stranger(0)), Picture("b", "b", None, status="rejected")]
    run = hashed_run(tmp_path / "screen", pictures, screens=True)
    assert read_candidates(run, open_view(run), "largest").index.tolist() == [0]


def test_what_a_view_of_a_screening_leaves_out_is_nobodys_copy(tmp_path: Path) -> None:
    pictures = [Picture("a", "a", stranger(0)), Picture("b", "b", stranger(1))]
    run = hashed_run(tmp_path / "screen", pictures, screens=True)
    out = pa.Table.from_pylist([{"shard": "000", "index": 0, "reason": "skipped"}], schema=GROUPS)
    less = exclude(run, open_view(run), ExclusionRequest("less", {}), out, lambda _: None)
    assert read_candidates(run, less, "largest").index.tolist() == [1]
    assert read_candidates(run, less, "score").worth.tolist() == [0]


def test_hashes_of_older_runs_are_of_another_kind(tmp_path: Path, run: Run) -> None:
    older = hashed_run(tmp_path / "older", [], version=2)
    assert (hash_kind(older), hash_kind(run)) == ("plain", "averaged")
