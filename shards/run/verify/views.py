"""One view, checked: its files, and its decisions against the facts and the run's own decisions."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import DamagedFile
from shards.reasons import DecisionReason
from shards.run.commit import FileRecord
from shards.run.data import read_data, read_shard
from shards.run.exclusion import left_out_by_shard, left_out_of, read_groups
from shards.run.run import Run
from shards.run.snapshot import SnapshotError, SnapshotShard, table_files
from shards.run.verify.conditions import rule_problems
from shards.run.verify.lists import check_clean_list
from shards.run.verify.problem import Problem
from shards.run.verify.rules import complaints, recount
from shards.run.verify.shard import check_clean, check_file, expected_clean, read_checked
from shards.run.view import (
    THRESHOLDS_ALONE,
    View,
    ViewError,
    open_view,
    own_score,
    read_view_record,
)
from shards.schema import SchemaError

LeftOut = Mapping[str, pa.Table]
"""The index and reason of each sample that a view leaves out, by shard."""

_RECORD = re.compile(r"views/([^/]+)/view\.json")
_BY_THRESHOLD = {DecisionReason.KEPT, DecisionReason.ITM_BELOW_THRESHOLD}


def view_records(run: Run) -> list[str]:
    """Name all views that have a `view.json`, readable or not."""
    matches = (_RECORD.fullmatch(name) for name in run.store.list("views"))
    return [match[1] for match in matches if match]


def read_view(run: Run, name: str) -> View | Problem:
    """Open a view, or say why that cannot be; raises SchemaError for one that is newer."""
    record_name = f"views/{name}/view.json"
    try:
        if read_view_record(run, name) is None:
            return Problem(record_name, "is no name of a view")
        return open_view(run, name)
    except (ViewError, SnapshotError) as error:
        return Problem(record_name, str(error))
    except DamagedFile as error:
        return Problem.of(record_name, error)


def check_view_lists(run: Run, view: View) -> Iterator[Problem]:
    """Check what stands beside a view's decisions: its clean tars' list, and what it leaves out."""
    if view.record is not None and view.record.with_clean:
        files = table_files(view.shards, "clean")
        yield from check_clean_list(run, f"views/{view.name}/clean.txt", files)
    if view.record is not None and view.record.excluded is not None:
        name = view.record.excluded.groups
        try:
            left_out = left_out_of(read_groups(run, view.record.excluded))
        except (DamagedFile, SchemaError) as error:
            yield Problem(name, str(error))
            return
        if len(left_out) != view.record.excluded.samples:
            counted = str(view.record.excluded.samples), str(len(left_out))
            yield Problem(name, "samples left out", *counted)


def decisions_checks(run: Run, view: View) -> list[Callable[[], Iterator[Problem]]]:
    """Return the checks of a view's files of decisions, each of which shards may share."""
    files = table_files(view.shards, "decisions")
    named: dict[str, set[str]] = {file.name: set() for file in files}
    for shard in view.shards:
        named[shard.file("decisions").name].add(shard.shard)
    return [partial(_decisions_file_problems, run, file, named[file.name]) for file in files]


def _decisions_file_problems(run: Run, file: FileRecord, shards: set[str]) -> Iterator[Problem]:
    """Yield what is wrong with a file of decisions as a whole; `shards` share it."""
    faults = list(check_file(run, file))
    yield from faults
    if faults:
        return
    try:
        rows = read_data(run, file, ["shard"])["shard"]
    except SchemaError as error:
        yield Problem(file.name, str(error))
    except DamagedFile as error:
        yield Problem.of(file.name, error)
    else:
        if file.rows != len(rows):
            yield Problem(file.name, "rows", str(file.rows), str(len(rows)))
        if others := set(rows.unique().to_pylist()) - shards:
            yield Problem(file.name, f"holds rows of other shards: {sorted(map(str, others))[:3]}")


def check_view_shard(
    run: Run, view: View, shard: SnapshotShard, decided_by_run: FileRecord, left_out: LeftOut
) -> list[Problem]:
    """Check a view's decisions on one shard, and its clean tar, against the facts.

    `decided_by_run` are the run's own decisions on it, `left_out` is what the view leaves out, of
    all shards. `decisions_checks` look into the files.
    """
    files = {file.table: file for file in shard.files}
    mine = [file for file in shard.files if file.table in ("decisions", "clean")]
    clean = [file for file in mine if file.table == "clean"]
    folder = f"views/{view.name}/"
    if "decisions" not in files or not all(file.name.startswith(folder) for file in mine):
        record_name = f"{folder}view.json"
        return [Problem(record_name, f"its files of shard {shard.shard} are not its own")]
    faults = [fault for file in clean for fault in check_file(run, file)]
    reasons = _reasons(left_out.get(shard.shard))
    return faults or list(_content_problems(run, view, shard, files, decided_by_run, reasons))


def _content_problems(
    run: Run,
    view: View,
    shard: SnapshotShard,
    files: Mapping[str, FileRecord],
    decided_by_run: FileRecord,
    left_out: Mapping[int, str],
) -> Iterator[Problem]:
    decisions_name = files["decisions"].name
    try:
        facts = {table: read_checked(run, files[table]) for table in ("samples", "texts")}
        before = read_checked(run, decided_by_run)
        decisions = read_shard(run, shard, "decisions")
    except (OSError, SchemaError, DamagedFile):
        return  # the check of the commit says so, or that of the view's file
    only = run.only_screens
    faults = list(complaints(shard.shard, **facts, decisions=decisions, only_screened=only))
    yield from (Problem(decisions_name, fault) for fault in faults)
    if faults:
        return
    if view.basis == THRESHOLDS_ALONE and own_score(run) == view.basis.by:
        broken = _rule_problems(view, *_others(left_out, facts["texts"], before, decisions))
    else:
        broken = rule_problems(run, view, shard, before, decisions, left_out)
    broken = chain(_exclusion_problems(left_out, decisions), broken)
    yield from (Problem(decisions_name, what) for what in broken)
    counted = recount(**facts, decisions=decisions, screened=_screened(run, left_out))
    if counted != shard.counts:
        sides = counted.model_dump_json(), shard.counts.model_dump_json()
        yield Problem(decisions_name, "counts", *sides)
    expected = expected_clean(shard.shard, {**facts, "decisions": decisions})
    if "clean" in files:
        yield from check_clean(run, files["clean"], expected)
    elif expected and view.record is not None and view.record.with_clean:
        yield Problem(
            decisions_name, "samples are kept, but the view names no clean tar of the shard"
        )


def read_left_out(run: Run, view: View) -> LeftOut:
    """Read what a view leaves out, once for all of its shards."""
    try:
        return left_out_by_shard(read_groups(run, view.excluded))
    except (DamagedFile, SchemaError):
        return {}  # the check of the view's lists says so


def _reasons(rows: pa.Table | None) -> dict[int, str]:
    """Return the reason of each sample of a shard that a view leaves out, by index."""
    if rows is None:
        return {}
    return dict(zip(rows["index"].to_pylist(), rows["reason"].to_pylist(), strict=True))


def _screened(run: Run, left_out: Mapping[int, str]) -> frozenset[int] | None:
    return frozenset(left_out) if run.only_screens else None


def _exclusion_problems(left_out: Mapping[int, str], decisions: pa.Table) -> Iterator[str]:
    """Yield where texts of samples that are left out have not the reason of that."""
    rows = zip(decisions["index"].to_pylist(), decisions["reason"].to_pylist(), strict=True)
    if wrong := sum(left_out.get(index, reason) != reason for index, reason in rows):
        yield f"texts of samples left out that have another reason than the list: {wrong}"


def _others(left_out: Mapping[int, str], *tables: pa.Table) -> list[pa.Table]:
    """Return the rows of tables of texts that are of no sample that is left out."""
    out = pa.array(sorted(left_out), pa.int32())
    return [table.filter(pc.invert(pc.is_in(table["index"], value_set=out))) for table in tables]


def _rule_problems(view: View, texts: pa.Table, before: pa.Table, after: pa.Table) -> Iterator[str]:
    """Yield where decisions are not the run's own but for the thresholds, or break these."""
    if len(before) != len(after):
        return  # the check of the run's own says so
    old, new = before["reason"].to_pylist(), after["reason"].to_pylist()
    reopened = _BY_THRESHOLD | {DecisionReason.NOT_PREFERRED}
    by_threshold = np.array([reason in reopened for reason in old], dtype=bool)
    if any(o != n for o, n, free in zip(old, new, by_threshold, strict=True) if not free):
        yield "a reason that lies in the text is not the run's own"
    if any(n not in _BY_THRESHOLD for n, free in zip(new, by_threshold, strict=True) if free):
        yield "a text is refused for a reason that is not the run's own"
    origins = texts["origin"].to_pylist()
    unknown = sorted(set(origins) - view.thresholds.keys())
    if unknown:
        yield f"texts of origin {unknown[0]!r} have no threshold"
        return
    thresholds = np.array([view.thresholds[origin] for origin in origins], dtype=np.float32)
    itm = texts["itm"].to_numpy()
    keep = np.array(after["keep"].to_pylist(), dtype=bool)
    wrong = by_threshold & (keep != (itm >= thresholds))
    if wrong.any():
        yield f"texts not decided by the view's thresholds: {wrong.sum()}"
