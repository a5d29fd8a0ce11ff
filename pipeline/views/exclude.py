"""Write a view that leaves samples out: their texts have its reason, the others another view's.

Nothing is erased: the pictures stay where they are, and so do the run's own decisions. Small shards
share a file of decisions, as in views that are judged (`group`).
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.views.group import Group, count_again, in_groups, in_threads
from pipeline.views.rewrite import best_by, rewrite
from shards.run.commit import Counts, FileRecord
from shards.run.data import read_data
from shards.run.exclusion import Exclusion, left_out_by_shard, read_groups
from shards.run.run import Run
from shards.run.scoring.score_set import with_scores
from shards.run.snapshot import SnapshotError, SnapshotShard, table_files, write_clean_list
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
    """What the writing of shards needs."""

    run: Run
    judging: Judging
    write_clean: bool
    by: str
    groups: pa.Table

    @cached_property
    def listed(self) -> dict[str, pa.Table]:
        """The places that are left out (index, reason), by shard."""
        return left_out_by_shard(self.groups)

    def of_group(self, folder: Path, shards: Sequence[SnapshotShard]) -> list[SnapshotShard]:
        """Write the decisions on a group of shards, into one file."""
        group, reasons = _read_group(self.run, shards), self._reasons(shards)
        samples = group.samples()
        decided = lay_over(group.decisions, reasons[samples])
        counts = count_again(group, decided, samples)
        if self.run.only_screens:
            counts = [self._screened(shard) for shard in shards]
        file = self._publish(folder, shards[0].shard, decided)
        return [
            replace(shard, files=(shard.file("samples"), shard.file("texts"), file), counts=counted)
            for shard, counted in zip(shards, counts, strict=True)
        ]

    def rewrite(self, folder: Path, pair: tuple[SnapshotShard, SnapshotShard]) -> SnapshotShard:
        """Write the clean tar of a shard that has its decisions, if something is kept."""
        facts, decided = pair
        if not decided.counts.kept:
            return decided
        scores = best_by(self.run, facts, self.by)
        path = folder / f"{decided.shard}.tar"
        tar = rewrite(self.run, decided, path, lambda _: None, scores)
        name = self.judging.file_name("clean", decided.shard)
        clean = publish_file(self.run.store, tar, "clean", name)
        return replace(decided, files=(*decided.files, clean))

    def _reasons(self, shards: Sequence[SnapshotShard]) -> NDArray[np.object_]:
        """Return the reason of each sample that is left out, over all of these shards, or None."""
        sizes = [shard.counts.samples_in for shard in shards]
        reasons = np.full(sum(sizes), None, object)
        for shard, begin in zip(shards, np.cumsum([0, *sizes[:-1]]), strict=True):
            if (rows := self.listed.get(shard.shard)) is not None:
                reasons[begin + rows["index"].to_numpy()] = rows["reason"].to_pylist()
        return reasons

    def _screened(self, shard: SnapshotShard) -> Counts:
        """Count a shard of a run without texts, where all that is not left out is kept."""
        left_out = len(self.listed.get(shard.shard, ()))  # by the view below, too
        kept = shard.counts.samples_in - shard.counts.rejected - left_out
        return shard.counts.model_copy(update={"kept": kept, "filtered": left_out})

    def _publish(self, folder: Path, shard: str, decided: pa.Table) -> FileRecord:
        file = TableFile(folder / f"{shard}.parquet", "decisions")
        file.add_table(decided)
        name = self.judging.file_name("decisions", shard)
        return publish_file(self.run.store, file, "decisions", name)


def lay_over(decisions: pa.Table, reasons: NDArray[np.object_]) -> pa.Table:
    """Give texts the reason that they are left out for, or leave them as they are, where None."""
    out = np.array([reason is not None for reason in reasons], bool)
    keep = decisions["keep"].to_numpy() & ~out
    reason = pc.coalesce(pa.array(reasons, pa.string()), decisions["reason"].combine_chunks())
    columns = {name: decisions[name] for name in ("shard", "index", "text_no")}
    return pa.table({**columns, "keep": pa.array(keep), "reason": reason}).cast(DECISIONS)


def _read_group(run: Run, shards: Sequence[SnapshotShard]) -> Group:
    """Read what the view below decides on shards, each of its files once, and texts' origins."""
    names = pa.array([shard.shard for shard in shards])
    texts = pa.concat_tables([read_data(run, s.file("texts"), ["origin"]) for s in shards])
    read = [read_data(run, file) for file in table_files(shards, "decisions")]
    decisions = pa.concat_tables(read).combine_chunks()
    decisions = decisions.filter(pc.is_in(decisions["shard"], value_set=names))
    lengths = np.array([shard.file("texts").rows for shard in shards], np.int64)
    group = Group(tuple(shards), lengths, texts.combine_chunks(), decisions)
    expected = pa.chunked_array([names.take(pa.array(group.places))])
    if not (len(texts) == len(decisions) and decisions["shard"].equals(expected)):
        raise ViewError(
            f"shards {shards[0].shard} to {shards[-1].shard}: the decisions are not on their "
            "texts; run `capfilt verify`"
        )
    return group


def _write(work: _Work, base: View, request: ExclusionRequest, report: Report) -> None:
    run, judging = work.run, work.judging
    with run.store.staging() as folder:
        facts = with_scores(run, base.shards, base.basis.scores)
        shards = list[SnapshotShard]()
        for group in in_threads(run, partial(work.of_group, folder), in_groups(facts)):
            shards += group
            if not work.write_clean:
                report(sum(shard.counts.samples_in for shard in group))
        if work.write_clean:
            pairs, shards = list(zip(facts, shards, strict=True)), []
            for shard in in_threads(run, partial(work.rewrite, folder), pairs):
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
