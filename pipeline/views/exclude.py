"""Write a view that leaves samples out: their texts have its reason, the others another view's.

Nothing is erased: the pictures stay where they are, and so do the run's own decisions.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.media.ahead import read_ahead
from pipeline.views.rewrite import best_by, rewrite
from shards.reasons import DecisionReason
from shards.run.commit import Counts, FileRecord, TextCounts
from shards.run.data import read_data, read_shard
from shards.run.exclusion import Exclusion, left_out_of, read_groups
from shards.run.run import Run
from shards.run.scoring.score_set import with_scores
from shards.run.snapshot import SnapshotError, SnapshotShard, write_clean_list
from shards.run.view import (
    Judging,
    Rule,
    View,
    ViewError,
    check_view_name,
    commit_view,
    discard,
    open_view,
    read_view_record,
)
from shards.schema import DECISIONS, GROUPS
from shards.writer import TableFile, publish_file

THREADS = 4
Report = Callable[[int], None]  # hears how many more samples are done


@dataclass(frozen=True, slots=True)
class ExclusionRequest:
    """A view to write: `asked` says in short what the list came of, and tells it from others."""

    name: str
    asked: Mapping[str, Any]
    write_clean: bool = False


def is_written(run: Run, base: View, request: ExclusionRequest) -> bool:
    """Check whether a view is there already; ViewError where its name is another's.

    Raises SnapshotError where the run is not finished.
    """
    check_view_name(request.name)
    if base.snapshot is None:
        raise SnapshotError(f"{run.store.url()} is not finished: run `capfilt clean` to its end")
    record = read_view_record(run, request.name)
    if record is None:
        return False
    there = record.excluded
    if there is None or (there.base, there.asked) != (base.name, dict(request.asked)):
        raise ViewError(
            f"{run.store.url()} has a view {request.name!r} already, of something else; choose "
            "another name"
        )
    if (record.snapshot, record.with_clean) != (base.snapshot, request.write_clean):
        raise ViewError(
            f"{run.store.url()} has a view {request.name!r} already, on another snapshot or with "
            "other clean shards; choose another name"
        )
    return True


def exclude(
    run: Run, base: View, request: ExclusionRequest, groups: pa.Table, report: Report
) -> View:
    """Write the view that leaves out what `groups` has a reason for; what `base` does stays out.

    Raises ViewError, SnapshotError as `is_written` does.
    """
    if not is_written(run, base, request):
        before = read_groups(run, base.excluded)
        judging = Judging(request.name)
        try:
            _write(
                _Work(run, judging, request.write_clean, base.basis.by, _joined(before, groups)),
                base,
                request,
                report,
            )
        except BaseException:
            discard(run, judging)
            raise
        is_written(run, base, request)  # another may have been first with something else
    view, listed = open_view(run, request.name), f"views/{request.name}/clean.txt"
    if request.write_clean and not run.store.exists(listed):
        write_clean_list(run, listed, view.shards)
    return view


def _joined(before: pa.Table, groups: pa.Table) -> pa.Table:
    """Put new groups behind those of the view below, numbered on."""
    first = (pc.max(before["group"]).as_py() or 0) + 1 if len(before) else 0
    numbers = pc.add(groups["group"], pa.scalar(first, pa.int64()))
    shifted = groups.set_column(groups.column_names.index("group"), GROUPS.field("group"), numbers)
    return pa.concat_tables([before.cast(GROUPS), shifted.cast(GROUPS)])


@dataclass(frozen=True)
class _Work:
    """What the writing of each shard needs."""

    run: Run
    judging: Judging
    write_clean: bool
    by: str
    groups: pa.Table

    @cached_property
    def listed(self) -> dict[str, pa.Table]:
        """The places that are left out (index, reason), by shard."""
        rows = left_out_of(self.groups).select(["shard", "index", "reason"]).sort_by("shard")
        names = rows["shard"].combine_chunks().dictionary_encode()
        starts = np.searchsorted(names.indices.to_numpy(), np.arange(len(names.dictionary) + 1))
        return {
            shard: rows.slice(starts[number], starts[number + 1] - starts[number])
            for number, shard in enumerate(names.dictionary.to_pylist())
        }

    def of_shard(self, folder: Path, facts: SnapshotShard) -> SnapshotShard:
        """Write the decisions of a shard, and its clean tar if wanted."""
        none = self.groups.slice(0, 0)
        reasons = _reasons(facts.counts.samples_in, self.listed.get(facts.shard, none))
        files = {file.table: file for file in facts.files}
        texts = read_data(self.run, files["texts"], ["origin"])
        before = read_shard(self.run, facts, "decisions")
        decided = lay_over(before, reasons)
        counts = _counted(self.run, facts.counts, texts["origin"], decided, reasons)
        written = [files["samples"], files["texts"], self._publish(folder, facts.shard, decided)]
        left = replace(facts, files=tuple(written), counts=counts)
        if not (self.write_clean and counts.kept):
            return left
        scores = best_by(self.run, facts, self.by)
        tar = rewrite(self.run, left, folder / f"{facts.shard}.tar", lambda _: None, scores)
        name = self.judging.file_name("clean", facts.shard)
        return replace(left, files=(*written, publish_file(self.run.store, tar, "clean", name)))

    def _publish(self, folder: Path, shard: str, decided: pa.Table) -> FileRecord:
        file = TableFile(folder / f"{shard}.parquet", "decisions")
        file.add_table(decided)
        name = self.judging.file_name("decisions", shard)
        return publish_file(self.run.store, file, "decisions", name)


def lay_over(decisions: pa.Table, reasons: NDArray[np.object_]) -> pa.Table:
    """Give texts of samples that are left out their reason; `reasons` stand by index, or None."""
    laid = reasons[decisions["index"].to_numpy()]
    out = np.array([reason is not None for reason in laid], bool)
    keep = decisions["keep"].to_numpy() & ~out
    reason = pc.coalesce(pa.array(laid, pa.string()), decisions["reason"].combine_chunks())
    columns = {name: decisions[name] for name in ("shard", "index", "text_no")}
    return pa.table({**columns, "keep": pa.array(keep), "reason": reason}).cast(DECISIONS)


def _reasons(samples: int, listed: pa.Table) -> NDArray[np.object_]:
    reasons = np.full(samples, None, object)
    if len(listed):
        reasons[listed["index"].to_numpy()] = listed["reason"].to_pylist()
    return reasons


def _write(work: _Work, base: View, request: ExclusionRequest, report: Report) -> None:
    run, judging = work.run, work.judging
    shards = []
    with run.store.staging() as folder:
        ahead = read_ahead(
            with_scores(run, base.shards, base.basis.scores),
            lambda shard: work.of_shard(folder, shard),
            lambda _: 0,
            2 * THREADS,
            threads=THREADS,
        )
        for _, shard in ahead:
            shards.append(shard)
            report(shard.counts.samples_in)
    buffer = io.BytesIO()
    pq.write_table(work.groups, buffer, compression="zstd", write_page_checksum=True)
    data = buffer.getvalue()
    run.store.put(judging.groups_name, data)
    excluded = Exclusion(
        groups=judging.groups_name,
        groups_sha256=hashlib.sha256(data).hexdigest(),
        samples=sum(len(rows) for rows in work.listed.values()),
        base=base.name,
        asked=dict(request.asked),
    )
    rules = {origin: Rule(threshold=at) for origin, at in base.thresholds.items()}
    if base.record is not None:
        rules = dict(base.record.rules)
    commit_view(
        run,
        judging,
        str(base.snapshot),
        rules,
        shards,
        request.write_clean,
        base.basis,
        excluded,
    )


def _counted(
    run: Run,
    facts: Counts,
    origins: pa.ChunkedArray,
    decided: pa.Table,
    reasons: NDArray[np.object_],
) -> Counts:
    """Count a shard again; in a run without texts all that is not left out is kept."""
    keep = decided["keep"].combine_chunks()
    kept = len(pc.unique(decided["index"].combine_chunks().filter(keep)))
    if run.only_screens:
        left_out = sum(reason is not None for reason in reasons)
        kept = facts.samples_in - facts.rejected - left_out
    by_origin = {
        row["values"]: row["counts"] for row in origins.filter(keep).value_counts().to_pylist()
    }
    texts = {
        origin: TextCounts(given=texts.given, kept=by_origin.get(origin, 0))
        for origin, texts in facts.texts.items()
    }
    of_reason = decided["reason"].to_pylist().count
    update = {
        "kept": kept,
        "filtered": facts.samples_in - facts.rejected - kept,
        "texts": texts,
        "not_finite": of_reason(DecisionReason.SCORE_NOT_FINITE),
        "refused": of_reason(DecisionReason.CAPTION_REFUSED),
    }
    return facts.model_copy(update=update)
