"""The occasions of views that leave samples out: the same pictures are found, or a list is read."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.views.dedup.groups import DedupConfig, Side, find_groups
from pipeline.views.dedup.listed import find_listed
from pipeline.views.exclude import ExclusionRequest, exclude, is_written
from shards.run.exclusion import read_groups
from shards.run.run import Run
from shards.run.view import View, open_view

if TYPE_CHECKING:
    from pipeline.search.pictures import IndexedPictures


@dataclass(frozen=True, slots=True)
class DedupRequest:
    """A deduplication of one view of a run, under a name, against other runs.

    `index` is the folder of an index of the pictures, for embeddings.
    """

    name: str
    view: str | None
    against: Sequence[str]
    config: DedupConfig
    write_clean: bool = False
    index: Path | None = None


def dedup(run: Run, request: DedupRequest, tell: Callable[[int], None]) -> dict[str, Any]:
    """Write the view, or find it there; return what it leaves out, in numbers."""
    base, config = open_view(run, request.view), request.config
    others = [Side(other, open_view(other)) for other in map(Run.open, request.against)]
    asked: dict[str, Any] = {"dedup": {"keep": config.keep, "distance": config.distance}}
    if others:
        asked["against"] = {side.run.store.url(): side.run.fingerprint for side in others}
    indexed = None if request.index is None else _open_index(request.index)
    if indexed is not None:
        asked["semantic"] = {
            "similarity": config.similarity,
            "model_digest": indexed.record["model_digest"],
            "vectors_sha256": indexed.record["files"]["images.faiss"]["sha256"],
        }
    written = ExclusionRequest(request.name, asked, request.write_clean)
    new = not is_written(run, base, written)
    if new:
        exclude(run, base, written, find_groups(Side(run, base), others, config, indexed), tell)
    groups = _groups(run, request.name)
    kinds = groups.filter(pc.is_valid(groups["reason"]))["kind"].value_counts().to_pylist()
    return {
        **_outcome(run, base, request.name),
        "new": new,
        "by_kind": {row["values"]: row["counts"] for row in kinds},
        "groups": len(pc.unique(groups["group"].drop_null())),
    }


def _open_index(folder: Path) -> "IndexedPictures":
    from pipeline.search.pictures import IndexedPictures  # FAISS is an extra

    return IndexedPictures(folder)


@dataclass(frozen=True, slots=True)
class ListRequest:
    """A list of samples to leave out of one view of a run, under a name."""

    name: str
    view: str | None
    location: str
    write_clean: bool = False


def exclude_listed(run: Run, request: ListRequest) -> dict[str, Any]:
    """Write the view, or find it there; return what it leaves out, in numbers."""
    base = open_view(run, request.view)
    groups, unknown = find_listed(run, base, request.location)
    rows = [f"{row['shard']}/{row['index']}" for row in groups.to_pylist()]
    asked = {"listed": hashlib.sha256("\n".join(rows).encode()).hexdigest()}
    written = ExclusionRequest(request.name, asked, request.write_clean)
    exclude(run, base, written, groups, lambda _: None)
    return {**_outcome(run, base, request.name), "unknown": unknown}


def _groups(run: Run, name: str) -> pa.Table:
    return read_groups(run, open_view(run, name).excluded)


def _outcome(run: Run, base: View, name: str) -> dict[str, Any]:
    view = open_view(run, name)
    assert view.record is not None
    assert view.record.excluded is not None
    return {
        "run": run.store.url(),
        "view": name,
        "snapshot": view.snapshot,
        "kept_before": sum(shard.counts.kept for shard in base.shards),
        "kept": sum(shard.counts.kept for shard in view.shards),
        "excluded": view.record.excluded.samples,
        "groups_file": run.store.url(view.record.excluded.groups),
    }
