"""Judging again gives what judging anew would have, reads no text, and needs no model."""

import dataclasses
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clean.judge import JudgeConfig, judge
from pipeline.views import group as grouping
from pipeline.views import rejudge as rejudging
from pipeline.views.decide import Rules, redecide
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.inputs.reader import ShardState, State
from shards.inputs.shard import InputShard
from shards.run.attempt import start_attempt
from shards.run.commit import Commit, InputRecord, commit
from shards.run.run import Run
from shards.run.snapshot import Snapshot, SnapshotError, open_snapshot, write_snapshot
from shards.run.verify.rules import recount
from shards.run.view import View, ViewError, open_view, view_names
from shards.schema import DECISIONS, SCHEMAS, TEXTS, SampleRow, TextRow, arrow_rows, read_table
from shards.store import Store
from shards.writer import ShardWriter

OWN = {"web": 0.5, "synthetic": 0.6}
WORDS = ["", "cat", "a cat", "a cat cat cat", "a banned dog", "dogs on a beach"]
SCORES = st.one_of(
    st.floats(0, 1, width=32),
    st.sampled_from([0.0, 0.5, 0.6, 1.0, float("nan"), float("inf"), None]),
)
TEXT_ROWS = st.lists(st.tuples(st.booleans(), st.sampled_from(WORDS), SCORES), max_size=40)
CONFIG = JudgeConfig(threshold=OWN, min_words=2, max_repeats=1, banned_words=("banned",))


def table_of(drawn: list[tuple[bool, str, float | None]]) -> pa.Table:
    """Make a texts table of two texts a sample."""
    rows = [
        {
            "shard": "s",
            "index": number // 2,
            "text_no": number % 2,
            "origin": "web" if web else "synthetic",
            "text": text,
            "itm": itm,
        }
        for number, (web, text, itm) in enumerate(drawn)
    ]
    return arrow_rows(rows, TEXTS)


@given(TEXT_ROWS)
def test_at_the_own_thresholds_nothing_changes(drawn: Any) -> None:
    texts = table_of(drawn)
    own = judge(texts, CONFIG)
    again = redecide(texts.select(["origin", "itm"]), own, Rules(OWN))
    assert again.schema.equals(DECISIONS, check_metadata=True)
    assert again.equals(own)


@given(TEXT_ROWS, st.floats(-1, 2), st.floats(-1, 2))
def test_at_others_it_is_as_judged_anew(drawn: Any, web: float, synthetic: float) -> None:
    texts, thresholds = table_of(drawn), {"web": web, "synthetic": synthetic}
    own = judge(texts, CONFIG)
    again = redecide(texts.select(["origin", "itm"]), own, Rules(thresholds))
    anew = judge(texts, CONFIG.model_copy(update={"threshold": thresholds}))
    assert again.equals(anew)


@settings(max_examples=40)
@given(TEXT_ROWS, st.floats(0, 1))
def test_against_a_loop(drawn: Any, threshold: float) -> None:
    texts = table_of(drawn)
    own = judge(texts, CONFIG).to_pylist()
    rules, decisions = Rules({**OWN, "web": threshold}), pa.Table.from_pylist(own, DECISIONS)
    again = redecide(texts, decisions, rules)
    for text, before, after in zip(texts.to_pylist(), own, again.to_pylist(), strict=True):
        if before["reason"] not in ("kept", "itm_below_threshold"):
            assert after == before
            continue
        limit = np.float32(threshold if text["origin"] == "web" else OWN["synthetic"])
        keep = bool(np.float32(text["itm"]) >= limit)
        reason = "kept" if keep else "itm_below_threshold"
        assert after == {**before, "keep": keep, "reason": reason}


def made_run(url: str, shards: int = 4, samples: int = 60, seed: int = 0) -> Run:
    """Commit a run of scores alone: samples of all outcomes, texts refused for all reasons."""
    draw = random.Random(seed)
    inputs = [InputShard(f"/absent/{n}.tar", f"s{n}", 1, None, 0.0) for n in range(shards)]
    identity = {"judge": {"threshold": OWN}, "write": {"clean": "none"}}
    run = Run.create(Store(url), "", identity, {}, inputs)
    for item in inputs:
        attempt = start_attempt(run, item.shard)
        with ShardWriter(run.store, item.shard, attempt) as writer:
            for index in range(samples):
                fill(writer, item.shard, index, draw)
            files = writer.finish()
        done = Commit(
            shard=item.shard,
            fingerprint=run.fingerprint,
            attempt=attempt,
            input=InputRecord(url=item.url, size_bytes=1, sha256="0"),
            state=ShardState(state=State.COMPLETE),
            files=tuple(files),
            counts=writer.counts,
            environment={},
            started="",
            ended="",
        )
        assert commit(run, done)
    write_snapshot(run)
    return run


def fill(writer: ShardWriter, shard: str, index: int, draw: random.Random) -> None:
    facts: SampleRow = {"index": index, "key": f"k{index}", "status": "ok"}
    if draw.random() < 0.1:
        writer.add({**facts, "status": "rejected", "reason": "image_blank"}, [], [])
        return
    has_web = draw.random() < 0.8
    texts: list[TextRow] = [
        {
            "text_no": number,
            "origin": "synthetic" if number else "web",
            "text": draw.choice(WORDS),
            "itm": draw.choice([draw.random(), 0.75, float("nan")]),
        }
        for number in range(0 if has_web else 1, draw.choice([1, 3]) if has_web else 3)
    ]
    rows = [{**text, "shard": shard, "index": index} for text in texts]
    reason = None if has_web else "text_missing"
    verdicts = judge(arrow_rows(rows, TEXTS), CONFIG).to_pylist()
    writer.add({**facts, "text_reason": reason}, texts, verdicts)


def quiet(samples: int) -> None:
    """Hear of progress."""


def view_of(run: Run, name: str = "v", **asked: Any) -> View:
    view, new = rejudge(run, ViewRequest(name, **asked), open_snapshot(run), quiet)
    assert new
    return view


def tables(run: Run, view: View) -> list[dict[str, pa.Table]]:
    return [
        {
            table: read_table(run.store.open(name), table, name).filter(
                pc.field("shard") == s.shard
            )
            for table in SCHEMAS
            for name in [s.file(table).name]
        }
        for s in view.shards
    ]


def open_scores(run: Run, origin: str) -> list[float]:
    """Give the scores that a threshold decides, best first, row by row."""
    scores = []
    for shard in tables(run, open_view(run)):
        for text, decision in zip(
            shard["texts"].to_pylist(), shard["decisions"].to_pylist(), strict=True
        ):
            if text["origin"] == origin and decision["reason"] in ("kept", "itm_below_threshold"):
                scores.append(text["itm"])
    return sorted(scores, reverse=True)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_run(str(tmp_path / "run"))


def test_a_view_adds_up_and_leaves_the_run_alone(run: Run) -> None:
    before = {name: run.store.read(name) for name in run.store.list()}
    view = view_of(run, threshold={"web": 0.7})
    assert view.thresholds == {"web": 0.7, "synthetic": 0.6}
    for shard, read in zip(view.shards, tables(run, view), strict=True):
        assert recount(**read) == shard.counts
        anew = judge(read["texts"], CONFIG.model_copy(update={"threshold": view.thresholds}))
        assert read["decisions"].equals(anew)
        decisions = shard.file("decisions")
        assert run.store.sha256(decisions.name) == decisions.sha256
        assert run.store.size_bytes(decisions.name) == decisions.size_bytes
    assert {name: run.store.read(name) for name in before} == before
    assert all(name.startswith("views/v/") for name in set(run.store.list()) - before.keys())
    assert sum(s.counts.kept for s in view.shards) != sum(
        s.counts.kept for s in open_view(run).shards
    )


def test_on_an_object_store(tmp_path: Path) -> None:
    run = made_run(f"memory://{tmp_path.name}/run", shards=2)
    view = view_of(run, threshold={"web": 0.7})
    assert [recount(**read) for read in tables(run, view)] == [s.counts for s in view.shards]


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9, 1.0])
def test_the_best_share_of_an_origin(run: Run, fraction: float) -> None:
    view = view_of(run, keep_fraction={"synthetic": fraction})
    scores = open_scores(run, "synthetic")
    count = sum(s.counts.texts["synthetic"].given for s in view.shards)
    wanted = round(fraction * count)
    kept = sum(s.counts.texts["synthetic"].kept for s in view.shards)
    if wanted == 0:
        assert kept == 0
        assert view.thresholds["synthetic"] > scores[0]
    else:
        last = scores[min(wanted, len(scores)) - 1]
        assert kept == sum(score >= last for score in scores)  # ties are kept
        assert view.thresholds["synthetic"] == last
    assert view.thresholds["web"] == 0.5
    assert view.keep_fractions == {"synthetic": fraction}


def test_ties_at_the_threshold_are_all_kept(run: Run) -> None:
    scores = open_scores(run, "synthetic")
    count = sum(s.counts.texts["synthetic"].given for s in open_view(run).shards)
    place = scores.index(0.75)  # which many texts have
    view = view_of(run, keep_fraction={"synthetic": (place + 1) / count})
    assert view.thresholds["synthetic"] == 0.75
    kept = sum(s.counts.texts["synthetic"].kept for s in view.shards)
    assert kept == place + scores.count(0.75) > place + 1


def test_the_same_again_is_found(run: Run) -> None:
    view = view_of(run, threshold={"web": 0.7}, keep_fraction={"synthetic": 0.5})
    files = run.store.list()
    asked = ViewRequest("v", {"web": 0.7}, {"synthetic": 0.5})
    assert rejudge(run, asked, open_snapshot(run), quiet) == (view, False)
    assert run.store.list() == files
    for other in (
        ViewRequest("v"),
        ViewRequest("v", {"web": 0.7}),
        ViewRequest("v", {"web": 0.7}, {"synthetic": 0.4}),
        ViewRequest("v", {"web": 0.7, "synthetic": view.thresholds["synthetic"]}),
    ):
        with pytest.raises(ViewError, match="has a view 'v' already, with other rules"):
            rejudge(run, other, open_snapshot(run), quiet)
    with pytest.raises(ViewError, match="without clean shards; choose another name"):
        rejudge(run, dataclasses.replace(asked, write_clean=True), open_snapshot(run), quiet)
    elsewhere = Snapshot("0" * 32, open_snapshot(run).shards)
    with pytest.raises(ViewError, match=r"on snapshot .* and not 0000"):
        rejudge(run, asked, elsewhere, quiet)
    assert run.store.list() == files


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ViewRequest("own"), "run's own decisions"),
        (ViewRequest("a/b"), "cannot name a view"),
        (ViewRequest("v", {"wbe": 0.5}), "did you mean 'web'"),
    ],
)
def test_a_request_that_is_refused_leaves_nothing(
    run: Run, request_: ViewRequest, message: str
) -> None:
    with pytest.raises(ViewError, match=message):
        rejudge(run, request_, open_snapshot(run), quiet)
    assert run.store.list("views") == []


def test_a_run_without_a_snapshot(tmp_path: Path) -> None:
    inputs = [InputShard("/absent/0.tar", "s0", 1, None, 0.0)]
    run = Run.create(Store(str(tmp_path / "run")), "", {}, {}, inputs)
    with pytest.raises(SnapshotError, match="finish the run first"):
        open_snapshot(run)


@pytest.mark.parametrize("same_rules", [True, False])
def test_two_at_once_under_one_name(run: Run, same_rules: bool) -> None:
    together = threading.Barrier(2)
    ended: list[tuple[View, bool] | ViewError] = []
    snapshot = open_snapshot(run)

    def work(threshold: float) -> None:
        waited: list[int] = []

        def meet(_: int) -> None:  # both are past the look for a view of that name
            if not waited:
                waited.append(1)
                together.wait(20)

        try:
            asked = ViewRequest("v", {"web": threshold})
            ended.append(rejudge(run, asked, snapshot, meet))
        except ViewError as error:
            ended.append(error)

    threads = [
        threading.Thread(target=work, args=(threshold,))
        for threshold in (0.7, 0.7 if same_rules else 0.9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [found for found in ended if isinstance(found, tuple) and found[1]]
    lost = next(found for found in ended if found is not won[0])
    assert len(won) == 1
    if same_rules:
        assert lost == (won[0][0], False)
    else:
        assert isinstance(lost, ViewError)
    names = {file.name for shard in won[0][0].shards for file in shard.files}
    left = set(run.store.list("views")) - names
    assert len(left) == 2  # view.json and its list of shards
    assert open_view(run, "v") == won[0][0]


def test_a_failure_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = grouping.decide, []

    def third_fails(*arguments: Any) -> pa.Table:
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError("the disk is full")
        return real(*arguments)

    monkeypatch.setattr(grouping, "MOST_TEXTS", 1)  # each shard by itself
    monkeypatch.setattr(rejudging, "decide", third_fails)
    before = run.store.list()
    with pytest.raises(OSError, match="full"):
        rejudge(run, ViewRequest("v"), open_snapshot(run), quiet)
    assert run.store.list() == before
    assert view_names(run) == []
    monkeypatch.undo()
    assert view_of(run).name == "v"


def test_all_samples_are_reported(run: Run) -> None:
    heard: list[int] = []
    rejudge(run, ViewRequest("v"), open_snapshot(run), heard.append)
    assert sum(heard) == sum(s.counts.samples_in for s in open_snapshot(run).shards)
