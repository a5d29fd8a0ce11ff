"""The occasion of a view: a run is decided about again, without a model."""

from collections.abc import Callable
from typing import Any

from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.comparison import side_by_side
from shards.run.run import Run
from shards.run.snapshot import Snapshot
from shards.run.view import View


def judge(
    run: Run, snapshot: Snapshot, request: ViewRequest, tell: Callable[[int], None]
) -> dict[str, Any]:
    """Make a view, or find it made; return it beside what the run itself had decided."""
    view, new = rejudge(run, request, snapshot, tell)
    own = run.identity.get("judge", {}).get("threshold", {})
    before = View(None, snapshot.id, own, snapshot.shards)
    side = side_by_side(view, before)
    rules = {
        origin: {
            "threshold": view.thresholds.get(origin),
            "own_threshold": before.thresholds.get(origin),
            "keep_fraction": view.keep_fractions.get(origin),
        }
        for origin in sorted(view.thresholds.keys() | side["texts"].keys())
    }
    judged = {"run": run.store.url(), "view": view.name, "new": new, "snapshot": view.snapshot}
    return {**judged, **view.basis.as_json(), "rules": rules, **side}
