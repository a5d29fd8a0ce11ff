"""Judge a finished run again: other thresholds over the facts that are there, without a model.

A reason that lies in the text itself stays; the rest is `itm >= float32(threshold of its origin)`.
So only numbers are read: each text's origin and score, and the run's own reason. Shards are judged
in threads, one at a time in each; the view exists once all of its files are safe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.clean.judge import is_open, thresholds_of
from pipeline.media.ahead import read_ahead
from pipeline.views.request import ViewRequest, is_resolved, resolve_thresholds
from pipeline.views.rewrite import rewrite
from shards.reasons import DecisionReason
from shards.run.commit import Counts, FileRecord, TextCounts, total_counts
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.snapshot import Snapshot, SnapshotShard, write_clean_list
from shards.run.view import (
    Judging,
    Rule,
    View,
    ViewError,
    check_view_name,
    commit_view,
    discard,
    open_view,
)
from shards.schema import DECISIONS
from shards.writer import TableFile, publish_file

THREADS = 4  # reading and writing let others run; an object store wants several at once

Report = Callable[[int], None]  # hears how many more samples are done
Result = TypeVar("Result")


def rejudge(
    run: Run, request: ViewRequest, snapshot: Snapshot, report: Report
) -> tuple[View, bool]:
    """Write a view, or find the same one there; returns it, and whether it is new.

    Raises ViewError for a request that cannot be met or a name that is taken by another view, and
    InputChanged where clean tars are wanted and the input is no longer what was cleaned.
    """
    check_view_name(request.name)
    counts = total_counts(shard.counts for shard in snapshot.shards)
    thresholds = resolve_thresholds(run, request, counts)
    if is_resolved(run, request, snapshot, thresholds):
        return _opened(run, request.name), False
    for origin, fraction in request.keep_fraction.items():
        total = counts.texts.get(origin, TextCounts()).given
        thresholds[origin] = fraction_threshold(run, snapshot.shards, origin, fraction, total)
    judging = Judging(request.name)
    try:
        new = _write(run, request, snapshot, thresholds, judging, report)
    except BaseException:
        discard(run, judging, (shard.shard for shard in snapshot.shards))
        raise
    if not new:  # another was first: it is the same, or an error
        is_resolved(run, request, snapshot, thresholds)
    return _opened(run, request.name), new


def fraction_threshold(
    run: Run, shards: Sequence[SnapshotShard], origin: str, fraction: float, total: int
) -> float:
    """Find the score of the k-th best text of an origin, k being `fraction` of all `total`.

    Only texts that a threshold decides can be among them. Texts that share the score are all kept;
    where k is 0, the threshold lies just above the best.
    """
    scores = np.concatenate(
        [np.empty(0, np.float32), *_in_threads(partial(_open_scores, run, origin), shards)]
    )
    wanted = round(fraction * total)
    if not wanted:
        best = scores.max(initial=np.float32(0))
        return float(np.nextafter(best, np.float32(np.inf)))
    if not len(scores):
        return 0.0
    rank = max(len(scores) - wanted, 0)
    scores.partition(rank)
    return float(scores[rank])


def redecide(
    shard: str, texts: pa.Table, decisions: pa.Table, thresholds: Mapping[str, float]
) -> pa.Table:
    """Decide the texts (origin, itm) of one shard; `decisions` are the run's on them."""
    reasons = decisions["reason"].combine_chunks().dictionary_encode()
    names = [
        *reasons.dictionary.to_pylist(),
        DecisionReason.KEPT,
        DecisionReason.ITM_BELOW_THRESHOLD,
    ]
    kept, below = len(names) - 2, len(names) - 1
    is_judged, itm = is_open(decisions["reason"]), texts["itm"].to_numpy().astype(np.float32)
    keep = is_judged & (itm >= thresholds_of(texts["origin"], dict(thresholds)))
    codes = np.where(is_judged, np.where(keep, kept, below), reasons.indices.to_numpy())
    columns = {
        "shard": pa.repeat(pa.scalar(shard, pa.string()), len(decisions)),
        "index": decisions["index"],
        "text_no": decisions["text_no"],
        "keep": pa.array(keep),
        "reason": pc.take(pa.array(names, pa.string()), pa.array(codes)),
    }
    return pa.table(columns).cast(DECISIONS)


def _write(
    run: Run,
    request: ViewRequest,
    snapshot: Snapshot,
    thresholds: Mapping[str, float],
    judging: Judging,
    report: Report,
) -> bool:
    with run.store.staging() as folder:
        work = _Work(run, judging, thresholds, request.write_clean, folder, report)
        shards = _in_threads(work.judge, snapshot.shards)
    texts = total_counts(shard.counts for shard in shards).texts
    rules = {}
    for origin, threshold in sorted(thresholds.items()):
        count = texts.get(origin, TextCounts())
        share = count.kept / count.given if count.given else None
        fraction = request.keep_fraction.get(origin)
        rules[origin] = Rule(threshold=threshold, keep_fraction=fraction, share=share)
    return commit_view(run, judging, snapshot.id, rules, shards, request.write_clean)


def _opened(run: Run, name: str) -> View:
    """Open a view that is there, with its list of clean tars, which is written last."""
    view, listed = open_view(run, name), f"views/{name}/clean.txt"
    if view.record and view.record.with_clean and not run.store.exists(listed):
        write_clean_list(run, listed, view.shards)
    return view


@dataclass(frozen=True, slots=True)
class _Work:
    """What the judging of each shard needs."""

    run: Run
    judging: Judging
    thresholds: Mapping[str, float]
    write_clean: bool
    folder: Path
    report: Report

    def judge(self, facts: SnapshotShard) -> SnapshotShard:
        """Write the decisions of one shard, and its clean tar if wanted."""
        texts = _read(self.run, facts, "texts", ["origin", "itm"])
        decisions = _read(self.run, facts, "decisions", ["index", "text_no", "reason"])
        if len(texts) != len(decisions):
            raise ViewError(
                f"shard {facts.shard}: {len(texts)} texts, but {len(decisions)} decisions on them; "
                "run `capfilt verify`"
            )
        decided = redecide(facts.shard, texts, decisions, self.thresholds)
        counts = _counted(facts.counts, texts["origin"], decided)
        written = [file for file in facts.files if file.table not in ("decisions", "clean")]
        written.append(self._publish(facts.shard, decided))
        judged = replace(facts, files=tuple(written), counts=counts)
        if self.write_clean and counts.kept:  # there is no tar where nothing is kept
            return replace(judged, files=(*written, self._rewrite(judged)))
        self.report(counts.samples_in)
        return judged

    def _publish(self, shard: str, decided: pa.Table) -> FileRecord:
        file = TableFile(self.folder / f"{shard}.parquet", "decisions")
        file.add_table(decided)
        name = self.judging.file_name("decisions", shard)
        return publish_file(self.run.store, file, "decisions", name)

    def _rewrite(self, judged: SnapshotShard) -> FileRecord:
        file = rewrite(self.run, judged, self.folder / f"{judged.shard}.tar", self.report)
        name = self.judging.file_name("clean", judged.shard)
        return publish_file(self.run.store, file, "clean", name)


def _counted(facts: Counts, origins: pa.ChunkedArray, decided: pa.Table) -> Counts:
    """Count a shard by its new decisions; what became of rejected samples is a fact."""
    keep = decided["keep"].combine_chunks()
    has_kept = np.zeros(facts.samples_in, dtype=bool)
    has_kept[decided["index"].filter(keep).to_numpy()] = True
    kept = int(has_kept.sum())
    by_origin = {
        row["values"]: row["counts"] for row in origins.filter(keep).value_counts().to_pylist()
    }
    return Counts(
        samples_in=facts.samples_in,
        kept=kept,
        filtered=facts.samples_in - facts.rejected - kept,
        rejected=facts.rejected,
        rejected_by_reason=facts.rejected_by_reason,
        text_reasons=facts.text_reasons,
        texts={
            origin: TextCounts(given=texts.given, kept=by_origin.get(origin, 0))
            for origin, texts in facts.texts.items()
        },
        not_finite=facts.not_finite,
    )


def _open_scores(run: Run, origin: str, shard: SnapshotShard) -> NDArray[np.float32]:
    """Read the scores of a shard's texts of one origin that a threshold decides."""
    texts = _read(run, shard, "texts", ["origin", "itm"])
    decisions = _read(run, shard, "decisions", ["reason"])
    wanted = is_open(decisions["reason"]) & pc.equal(texts["origin"], origin).to_numpy()
    scores = texts["itm"].to_numpy().astype(np.float32)[wanted]
    return scores[np.isfinite(scores)]


def _read(run: Run, shard: SnapshotShard, table: str, columns: list[str]) -> pa.Table:
    return read_data(run, next(file for file in shard.files if file.table == table), columns)


def _in_threads(
    work: Callable[[SnapshotShard], Result], shards: Sequence[SnapshotShard]
) -> list[Result]:
    """Do the work on every shard; after a failure nothing more is begun."""
    ahead = read_ahead(shards, work, lambda _: 0, len(shards), threads=THREADS)
    return [result for _, result in ahead]
