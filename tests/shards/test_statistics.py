"""The numbers of a run are those of its rows."""

import io
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from shards.run.attempt import start_attempt
from shards.run.commit import Counts, commit, read_commits
from shards.run.run import Run
from shards.run.scoring.score_set import create_score_set
from shards.run.snapshot import write_snapshot
from shards.schema import DecisionRow, SampleRow, TextRow, read_table
from shards.statistics import run_statistics
from shards.writer import ShardWriter
from tests.shards.conftest import DoWork, MakeRun


def rows(run: Run, table: str) -> pa.Table:
    files = [done.file(table) for done in read_commits(run).values()]
    return pa.concat_tables(
        [read_table(io.BytesIO(run.store.read(f.name)), table, f.name) for f in files if f]
    )


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_against_the_rows(any_url: str, make_run: MakeRun, with_snapshot: bool) -> None:
    run = make_run(any_url)
    if with_snapshot:
        write_snapshot(run)
    stats = run_statistics(run)
    assert json.loads(json.dumps(stats)) == stats
    samples, texts, decisions = (rows(run, table) for table in ("samples", "texts", "decisions"))
    assert stats["samples_in"] == len(samples) == 12 + 12 + 5
    assert stats["samples_in"] == stats["kept"] + stats["filtered"] + stats["rejected"]
    assert stats["rejected"] == samples["status"].to_pylist().count("rejected") > 0
    assert stats["rejected_by_reason"] == {"image_blank": 4, "shard_truncated": 1}
    assert stats["shards"] == {
        "total": 3,
        "committed": 3,
        "damaged": 1,
        "quarantined": 0,
        "pending": 0,
    }
    (damaged,) = stats["damaged_shards"]
    assert damaged["shard"] in run.shards
    assert damaged["state"] == "truncated"
    is_ok = np.array(samples["status"].to_pylist()) == "ok"
    reasons = Counter(np.array(samples["text_reason"].to_pylist(), object)[is_ok].tolist())
    assert stats["text_reasons"] == {name: n for name, n in reasons.items() if name is not None}
    assert (stats["lacks_all_texts"], stats["sidecar_fields"]) == (False, [])
    assert stats["rows_apart"] == 0
    keep = decisions["keep"].to_numpy()
    origins = np.array(texts["origin"].to_pylist())
    for origin in ("web", "synthetic"):
        of = origins == origin
        assert stats["texts"][origin] == {"in": of.sum(), "kept": keep[of].sum()}
        itm = texts["itm"].to_numpy()[of].astype(np.float64)
        assert stats["highest_itm"][origin] == itm.max()
        edges = np.arange(21) / 20
        assert stats["histograms"][origin]["edges"] == edges.tolist()
        assert stats["histograms"][origin]["counts"] == np.histogram(itm, edges)[0].tolist()


def test_an_unfinished_run(any_url: str, make_run: MakeRun, do_work: DoWork) -> None:
    run = make_run(any_url, committed=False)
    empty = run_statistics(run)
    assert (empty["samples_in"], empty["texts"], empty["histograms"]) == (0, {}, {})
    assert empty["shards"]["pending"] == 3
    assert commit(run, do_work(run, run.shards[0]))
    write_snapshot(run, allow_partial=True)
    assert commit(run, do_work(run, run.shards[1]))
    stats = run_statistics(run)  # the commits know more than the partial snapshot
    assert stats["samples_in"] == 24
    assert (stats["shards"]["committed"], stats["shards"]["pending"]) == (2, 1)
    assert sum(stats["histograms"]["web"]["counts"]) == stats["texts"]["web"]["in"]


def test_scores_at_the_edges(any_url: str, make_run: MakeRun, do_work: DoWork) -> None:
    run = make_run(any_url, shards=1, committed=False)
    scores = [0.0, 0.05, 0.5, 0.75, 1.0, 0.99999, None, float("nan"), float("inf"), float("-inf")]
    shard, attempt = run.shards[0], start_attempt(run, run.shards[0])
    with ShardWriter(run.store, shard, attempt) as writer:
        for index, itm in enumerate(scores):
            text: TextRow = {"text_no": 1, "origin": "synthetic", "text": "x", "itm": itm}
            below: DecisionRow = {"text_no": 1, "keep": False, "reason": "itm_below_threshold"}
            writer.add({"index": index, "status": "ok"}, [text], [below])
        files = writer.finish()
    done = do_work(run, shard).model_copy(
        update={"attempt": attempt, "files": tuple(files), "counts": writer.counts}
    )
    assert commit(run, done)
    counts = run_statistics(run)["histograms"]["synthetic"]["counts"]
    expected = [0] * 20
    for place in (0, 1, 10, 15, 19, 19):
        expected[place] += 1
    assert counts == expected


def test_texts_that_may_stand_in_sidecars(any_url: str, make_run: MakeRun, do_work: DoWork) -> None:
    run = make_run(any_url, shards=1, committed=False)
    shard, attempt = run.shards[0], start_attempt(run, run.shards[0])
    metas = ['{"alt":"a dog","n":3}', '{"alt":"a cat","url":"u"}', None]
    with ShardWriter(run.store, shard, attempt) as writer:
        for index, meta in enumerate(metas):
            missing: SampleRow = {"status": "ok", "text_reason": "text_missing", "meta": meta}
            writer.add(missing | {"index": index}, [], [])
        writer.add({"index": 3, "status": "rejected", "reason": "image_blank"}, [], [])
        files = writer.finish()
    counted = {"attempt": attempt, "files": tuple(files), "counts": writer.counts}
    assert commit(run, do_work(run, shard).model_copy(update=counted))
    stats = run_statistics(run)
    assert stats["text_reasons"] == {"text_missing": 3}
    assert (stats["lacks_all_texts"], stats["sidecar_fields"]) == (True, ["alt", "url"])


def test_rows_of_torn_samples_are_counted_where_any_came_too_late(
    any_url: str, make_run: MakeRun, do_work: DoWork
) -> None:
    reasons: dict[str, dict[str, int]] = {
        "torn": {"image_missing": 3, "not_adjacent": 4, "image_blank": 1},
        "whole": {"image_missing": 5},
    }
    run = make_run(any_url, shards=2, committed=False)
    for shard, rejected in zip(run.shards, reasons.values(), strict=True):
        done = do_work(run, shard)
        counts = Counts(
            samples_in=10,
            rejected=sum(rejected.values()),
            filtered=10 - sum(rejected.values()),
            rejected_by_reason=rejected,
            text_reasons={"text_missing": 2},
        )
        assert commit(run, done.model_copy(update={"counts": counts}))
    assert run_statistics(run)["rows_apart"] == 3 + 4 + 2


def test_importing_the_room_is_light() -> None:
    code = (
        "import sys, shards.statistics, shards.run.verify.run;"
        "import shards.writer, shards.inputs.listing;"
        "print([name for name in ('duckdb', 'webdataset', 'torch', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_added_scores_are_named(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    assert "scores" not in run_statistics(run)
    create_score_set(run, "clip", ["cosine", "prob"], {}, {})
    expected = {"clip": {"names": ["clip.cosine", "clip.prob"], "shards": 0}}
    assert run_statistics(run)["scores"] == expected
