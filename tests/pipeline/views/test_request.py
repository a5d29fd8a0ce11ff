"""A request for a view: what it comes to, what it may not ask, and when it is met already."""

from pathlib import Path

import pytest

from pipeline.views.request import ViewRequest, is_resolved, resolve_thresholds
from shards.inputs.shard import InputShard
from shards.run.commit import Counts, TextCounts
from shards.run.run import Run
from shards.run.snapshot import Snapshot
from shards.run.view import ViewError
from shards.store import Store

OWN = {"web": 0.5, "synthetic": 0.6}
COUNTS = Counts(texts={origin: TextCounts(given=4, kept=2) for origin in OWN})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    inputs = [InputShard("/absent/0.tar", "s0", 1, None, 0.0)]
    return Run.create(Store(str(tmp_path / "run")), "", {"judge": {"threshold": OWN}}, {}, inputs)


@pytest.mark.parametrize(
    ("asked", "thresholds"),
    [
        (ViewRequest("v"), OWN),
        (ViewRequest("v", {"web": 0.7}), {"web": 0.7, "synthetic": 0.6}),
        (ViewRequest("v", {"web": -1.0}), {"web": -1.0, "synthetic": 0.6}),
        (ViewRequest("v", {}, {"web": 0.3}), {"synthetic": 0.6}),  # found from the scores later
        (ViewRequest("v", {"web": 0.7}, {"synthetic": 1.0}), {"web": 0.7}),
    ],
)
def test_origins_that_are_not_named_keep_the_run_s_threshold(
    run: Run, asked: ViewRequest, thresholds: dict[str, float]
) -> None:
    assert resolve_thresholds(run, asked, COUNTS) == thresholds


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (ViewRequest("v", {"wbe": 0.5}), "did you mean 'web'"),
        (ViewRequest("v", {}, {"sinthetic": 0.5}), "did you mean 'synthetic'"),
        (ViewRequest("v", {"web": 0.5}, {"web": 0.5}), "both a threshold and a fraction"),
        (ViewRequest("v", {"web": float("nan")}), "finite"),
        (ViewRequest("v", {"web": float("-inf")}), "finite"),
        (ViewRequest("v", {"web": 1e300}), "finite"),
        (ViewRequest("v", {}, {"web": 1.01}), "0 to 1"),
        (ViewRequest("v", {}, {"web": 30}), "0 to 1, found 30; for 30 % give 0.3"),
        (ViewRequest("v", {}, {"web": float("inf")}), "0 to 1, found inf$"),
        (ViewRequest("v", {}, {"web": -0.1}), "0 to 1"),
        (ViewRequest("v", {}, {"web": float("nan")}), "0 to 1"),
    ],
)
def test_requests_that_are_refused(run: Run, asked: ViewRequest, message: str) -> None:
    with pytest.raises(ViewError, match=message):
        resolve_thresholds(run, asked, COUNTS)


@pytest.mark.parametrize(
    ("threshold", "said"), [(50.0, ["For 50 % give 0.5."]), (-1.0, ["drops none"]), (1.0, [])]
)
def test_a_threshold_outside_the_scores_is_warned_of(
    run: Run, threshold: float, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    asked = ViewRequest("v", {"web": threshold})
    assert resolve_thresholds(run, asked, COUNTS) == {**OWN, "web": threshold}
    assert len(caplog.messages) == len(said)
    assert all(part in caplog.text for part in said)
    assert all(message.startswith("warning: ") for message in caplog.messages)


def test_an_imported_origin_needs_a_threshold(run: Run) -> None:
    counts = Counts(texts={**COUNTS.texts, "imported": TextCounts(given=1, kept=0)})
    with pytest.raises(ViewError, match=r"origin imported; given.*--threshold imported="):
        resolve_thresholds(run, ViewRequest("v"), counts)
    asked = ViewRequest("v", {"imported": 0.1})
    assert resolve_thresholds(run, asked, counts) == {**OWN, "imported": 0.1}


def test_no_view_of_the_name_is_there(run: Run) -> None:
    assert not is_resolved(run, ViewRequest("v"), Snapshot("x", ()), OWN)
