"""Views: sets of decisions over one snapshot. The run's own is the first; others re-decide it.

A view is read as a snapshot is, shard by shard: only the decisions (and the clean tars, where they
were written again) are files of its own. `views/NAME/view.json` is its commit point.
"""

from dataclasses import dataclass

from shards.commit import read_commits
from shards.run import Run
from shards.snapshot import (
    SnapshotShard,
    as_snapshot_shard,
    newest_snapshot_id,
    open_snapshot,
)


class ViewError(ValueError):
    """A view that is not there, or cannot be written."""


@dataclass(frozen=True, slots=True)
class View:
    """One set of decisions: `shards` name the files to read, and count what these decide.

    `name` is None for the run's own decisions; `snapshot` is None while no snapshot lists all that
    is committed. `thresholds` are on the probability of a match, by origin.
    """

    name: str | None
    snapshot: str | None
    thresholds: dict[str, float]
    shards: tuple[SnapshotShard, ...]


def open_view(run: Run, name: str | None = None) -> View:
    """Open a view (default: the run's own decisions); raises ViewError.

    The run's own are those of the newest snapshot if that lists every shard, or else of the
    commits, so that an unfinished run can be looked at.
    """
    if name is None:
        return _own(run)
    raise ViewError(f"{run.store.url()} has no view {name!r}")


def _own(run: Run) -> View:
    thresholds = run.identity.get("judge", {}).get("threshold", {})
    newest = newest_snapshot_id(run)
    if newest is not None:
        snapshot = open_snapshot(run, newest)
        if len(snapshot.shards) == len(run.shards):
            return View(None, snapshot.id, thresholds, snapshot.shards)
    shards = tuple(as_snapshot_shard(done) for done in read_commits(run).values())
    return View(None, None, thresholds, shards)
