"""The occasion of a deduplication: the same pictures of a run are found, and a view is made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from pipeline.views.dedup.groups import DedupConfig, Side, find_groups
from pipeline.views.exclude import ExclusionRequest, exclude, is_written
from shards.run.run import Run
from shards.run.view import open_view, read_groups


@dataclass(frozen=True, slots=True)
class DedupRequest:
    """A deduplication of one view of a run, under a name, against other runs."""

    name: str
    view: str | None
    against: Sequence[str]
    config: DedupConfig
    write_clean: bool = False


def dedup(run: Run, request: DedupRequest, tell: Callable[[int], None]) -> dict[str, Any]:
    """Write the view, or find it there; return what it leaves out, in numbers."""
    base, config = open_view(run, request.view), request.config
    others = [Side(other, open_view(other)) for other in map(Run.open, request.against)]
    asked: dict[str, Any] = {"dedup": {"keep": config.keep, "distance": config.distance}}
    if others:
        asked["against"] = {side.run.store.url(): side.run.fingerprint for side in others}
    written = ExclusionRequest(request.name, asked, request.write_clean)
    new = not is_written(run, base, written)
    if new:
        exclude(run, base, written, find_groups(Side(run, base), others, config), tell)
    view = open_view(run, request.name)
    assert view.record is not None
    assert view.record.excluded is not None
    groups = read_groups(run, view.record)
    kinds = groups.filter(pc.is_valid(groups["reason"]))["kind"].value_counts().to_pylist()
    before = sum(shard.counts.kept for shard in base.shards)
    return {
        "run": run.store.url(),
        "view": request.name,
        "new": new,
        "snapshot": view.snapshot,
        "kept_before": before,
        "kept": sum(shard.counts.kept for shard in view.shards),
        "excluded": view.record.excluded.samples,
        "by_kind": {row["values"]: row["counts"] for row in kinds},
        "groups": len(pc.unique(groups["group"].drop_null())),
        "groups_file": run.store.url(view.record.excluded.groups),
    }
