"""Views: sets of decisions over one snapshot. The run's own is the first; others re-decide it.

A view is read as a snapshot is, shard by shard: only the decisions (and the clean tars, where they
were written again) are files of its own. `views/NAME/view.json` is its commit point: created only
if absent, it names one complete set of them. Facts are read where the snapshot says now.

Small shards share a file of decisions, which is named by the first of them (see `shards.run.data`);
in views of versions before 3 each shard has its own.
"""

import dataclasses
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat

from shards.errors import DamagedFile, UsageError
from shards.run.commit import FilesGone, check_published
from shards.run.exclusion import Exclusion
from shards.run.record import as_model, read_record, record_version, write_record
from shards.run.run import Run
from shards.run.segment import Committed, read_committed
from shards.run.snapshot import (
    SnapshotShard,
    as_snapshot_shard,
    from_parquet,
    newest_snapshot_id,
    open_snapshot,
    table_files,
    to_parquet,
)
from shards.schema import SchemaError, check_version

# of a view's record; 3: shards may share a file of decisions, and rules be more than thresholds on
# `itm`
VERSION = 3
EXCLUSION_VERSION = 4  # of one that leaves samples out, whatever their texts
ITM = "itm"
OWN = "own"  # what people call the run's own decisions
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FROZEN = ConfigDict(frozen=True, extra="forbid")


_ADDED = ("by", "where", "prefer", "scores", "excluded")


class ViewError(UsageError):
    """A view that is not there, or cannot be written."""


class Rule(BaseModel):
    """What decides the texts of one origin; a fraction that was asked for gave the threshold.

    `share` is that of the origin's texts that are kept; None where it has no texts.
    """

    model_config = _FROZEN
    threshold: FiniteFloat
    keep_fraction: FiniteFloat | None = None
    share: FiniteFloat | None = None


@dataclass(frozen=True, slots=True)
class Basis:
    """What a view is judged by beside its thresholds, for its record; see `ViewRecord`."""

    by: str = ITM
    where: str | None = None
    prefer: tuple[str, ...] = ()
    scores: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it for machines, without the sets' fingerprints."""
        return {"by": self.by, "where": self.where, "prefer": list(self.prefer)}


THRESHOLDS_ALONE = Basis()


class ViewRecord(BaseModel):
    """`view.json`: the rules of a view, the snapshot it stands on, and the list of its files.

    `rules` are on the score `by`; `where` must hold, too, and is all that decides origins without a
    rule. `prefer` names the origins of which the first alone stays. `scores` are the sets that it
    reads, by name, each with its fingerprint. Views by thresholds alone are written without these.
    """

    model_config = _FROZEN
    schema_version: int = VERSION
    name: str
    fingerprint: str
    snapshot: str
    rules: dict[str, Rule]
    shards: str
    shards_sha256: str
    with_clean: bool = False
    created: str
    by: str = ITM
    where: str | None = None
    prefer: tuple[str, ...] = ()
    scores: dict[str, str] = {}
    excluded: Exclusion | None = None

    @property
    def basis(self) -> Basis:
        """What it is judged by beside its thresholds."""
        return Basis(self.by, self.where, self.prefer, self.scores)

    def as_json(self) -> dict[str, Any]:
        """Return what is written: what older versions do not know only where it says something."""
        record = self.model_dump(mode="json")
        return {
            name: value
            for name, value in record.items()
            if name not in _ADDED or value != type(self).model_fields[name].default
        }


@dataclass(frozen=True, slots=True)
class View:
    """One set of decisions: `shards` name the files to read, and count what these decide.

    `name` is None for the run's own decisions; `snapshot` is None while no snapshot lists all that
    is committed. `thresholds` are on the score `by`, by origin; `record` is what `view.json` says,
    None for the run's own.
    """

    name: str | None
    snapshot: str | None
    thresholds: dict[str, float]
    shards: tuple[SnapshotShard, ...]
    record: ViewRecord | None = None
    by: str = ITM

    @property
    def basis(self) -> Basis:
        """What it is judged by beside its thresholds."""
        return Basis(self.by) if self.record is None else self.record.basis

    @property
    def excluded(self) -> Exclusion | None:
        """What it leaves out; None where that is nothing."""
        return None if self.record is None else self.record.excluded

    @property
    def keep_fractions(self) -> dict[str, float]:
        """Fractions to keep, by origin, that were asked for instead of thresholds."""
        rules = self.record.rules if self.record is not None else {}
        return {o: r.keep_fraction for o, r in rules.items() if r.keep_fraction is not None}


def open_view(run: Run, name: str | None = None) -> View:
    """Open a view (default, or `own`: the run's own decisions); raises ViewError, DamagedFile.

    The run's own are those of the newest snapshot if that lists every shard, or else of the
    commits, so that an unfinished run can be looked at.
    """
    if name is None or name == OWN:
        return _own(run)
    record = read_view_record(run, name)
    if record is None:
        raise _unknown(run, name)
    facts = open_snapshot(run, record.snapshot)
    shards = _overlaid(run, record, facts.shards)
    thresholds = {origin: rule.threshold for origin, rule in record.rules.items()}
    return View(name, record.snapshot, thresholds, shards, record, record.by)


def view_names(run: Run) -> list[str]:
    """Name the views that are there, sorted; the run's own is not among them."""
    store = run.store
    store.fs.invalidate_cache()
    try:
        paths = store.fs.ls(store.path("views"), detail=False)
    except FileNotFoundError:
        return []
    folders = sorted(path.rstrip("/").rpartition("/")[2] for path in paths)
    names = [name for name in folders if _NAME.fullmatch(name)]
    there = store.read_many([_record_name(name) for name in names])
    return [name for name in names if _record_name(name) in there]


def own_score(run: Run) -> str:
    """Name the score that a run's own decisions are by."""
    return str(run.identity.get("judge", {}).get("by", ITM))


def check_view_name(name: str) -> None:
    """Raise ViewError for what cannot name a new view."""
    if not _NAME.fullmatch(name):
        raise ViewError(
            f"{name!r} cannot name a view: expected 1 to 64 of the characters A-Z a-z 0-9 _ -"
        )
    if name == OWN:
        raise ViewError(f"{OWN!r} names the run's own decisions; choose another name")


def read_view_record(run: Run, name: str) -> ViewRecord | None:
    """Return the record of a view, or None if there is none.

    Raises DamagedFile, and SchemaError for one that a newer version wrote.
    """
    if not _NAME.fullmatch(name):
        return None
    where = run.store.url(_record_name(name))
    try:
        stored = read_record(run.store.read(_record_name(name)), where)
    except FileNotFoundError:
        return None
    check_version(record_version(stored, "schema_version", where), where, EXCLUSION_VERSION)
    record = as_model(ViewRecord, stored, where)
    if record.fingerprint != run.fingerprint:
        raise DamagedFile(where, f"a view of the run {run.fingerprint}", record.fingerprint)
    if not (record.name == name and record.shards.startswith(f"views/{name}/shards-")):
        raise DamagedFile(where, f"view {name!r} with its own list of shards", record.shards)
    return record


@dataclass(frozen=True, slots=True)
class Judging:
    """One attempt to write a view: every file of it carries the attempt's random id."""

    name: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def file_name(self, table: str, shard: str) -> str:
        """Name a shard's clean tar, or the file of its decisions and of those that share it."""
        suffix = "tar" if table == "clean" else "parquet"
        return f"views/{self.name}/{table}/{shard}-{self.id}.{suffix}"

    @property
    def shards_name(self) -> str:
        """Name the list of the view's shards."""
        return f"views/{self.name}/shards-{self.id}.parquet"

    @property
    def groups_name(self) -> str:
        """Name the list of the samples that the view leaves out."""
        return f"views/{self.name}/groups-{self.id}.parquet"


def commit_view(
    run: Run,
    judging: Judging,
    snapshot: str,
    rules: Mapping[str, Rule],
    shards: Sequence[SnapshotShard],
    with_clean: bool,
    basis: Basis = THRESHOLDS_ALONE,
    excluded: Exclusion | None = None,
) -> bool:
    """Make a judging the view of its name, unless another is; say whether it is.

    A loser's own files are removed, and no others. Data files must be published before; as with a
    shard's commit they are looked for before and after, and FilesGone leaves no view.
    """
    own = [file for table in ("decisions", "clean") for file in table_files(shards, table)]
    files = [file for file in own if judging.id in file.name]
    check_published(run, files)
    data = to_parquet(shards)
    run.store.put(judging.shards_name, data)
    record = ViewRecord(
        schema_version=EXCLUSION_VERSION if excluded else VERSION,
        name=judging.name,
        fingerprint=run.fingerprint,
        snapshot=snapshot,
        rules=dict(rules),
        shards=judging.shards_name,
        shards_sha256=hashlib.sha256(data).hexdigest(),
        with_clean=with_clean,
        created=datetime.now(UTC).isoformat(),
        by=basis.by,
        where=basis.where,
        prefer=basis.prefer,
        scores=dict(basis.scores),
        excluded=excluded,
    )
    run.store.create(_record_name(judging.name), write_record(record.as_json()))
    winner = read_view_record(run, judging.name)
    if winner is not None and winner.shards == judging.shards_name:
        try:
            check_published(run, files)
        except FilesGone:
            run.store.delete(_record_name(judging.name))
            raise
        return True
    discard(run, judging)
    return False


def discard(run: Run, judging: Judging) -> None:
    """Remove the files of a judging that came to nothing; those of a view stay."""
    with suppress(DamagedFile, SchemaError):
        record = read_view_record(run, judging.name)
        if record is not None and record.shards == judging.shards_name:
            return
    for name in run.store.list(f"views/{judging.name}"):
        if judging.id in name:
            run.store.delete(name)


def _own(run: Run) -> View:
    newest = newest_snapshot_id(run)
    if newest is not None:
        snapshot = open_snapshot(run, newest)
        if len(snapshot.shards) == len(run.shards):
            return own_view(run, snapshot.shards, snapshot.id)
    return view_of_commits(run, read_committed(run))


def own_view(run: Run, shards: tuple[SnapshotShard, ...], snapshot: str | None = None) -> View:
    """Return the run's own decisions on shards that were read already."""
    thresholds = run.identity.get("judge", {}).get("threshold", {})
    return View(None, snapshot, thresholds, shards, by=own_score(run))


def view_of_commits(run: Run, committed: Committed) -> View:
    """Return the run's own decisions on all that is committed, listed in a snapshot or not."""
    return own_view(run, tuple(map(as_snapshot_shard, committed.commits.values())))


def _overlaid(
    run: Run, record: ViewRecord, facts: Sequence[SnapshotShard]
) -> tuple[SnapshotShard, ...]:
    """Put a view's decisions, clean tars and counts over the shards of its snapshot."""
    where = run.store.url(record.shards)
    try:
        data = run.store.read(record.shards)
    except FileNotFoundError as error:
        raise DamagedFile(where, "the list of the view's shards", "none: it is gone") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != record.shards_sha256:
        raise DamagedFile(where, f"sha256 {record.shards_sha256}", digest)
    judged = {shard.shard: shard for shard in from_parquet(data, where)}
    if judged.keys() != {shard.shard for shard in facts}:
        raise DamagedFile(where, "the shards of its snapshot", f"{len(judged)} others")
    return tuple(_with_decisions(shard, judged[shard.shard]) for shard in facts)


def _with_decisions(facts: SnapshotShard, judged: SnapshotShard) -> SnapshotShard:
    there = [file for file in facts.files if file.table not in ("decisions", "clean")]
    own = [file for file in judged.files if file.table in ("decisions", "clean")]
    return dataclasses.replace(facts, files=(*there, *own), counts=judged.counts)


def _unknown(run: Run, name: str) -> ViewError:
    there = view_names(run)
    nearest = get_close_matches(name, there, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    listed = ", ".join([OWN, *there])
    return ViewError(f"{run.store.url()} has no view {name!r}{hint} there are: {listed}")


def _record_name(name: str) -> str:
    return f"views/{name}/view.json"
