"""Judge a finished run again: other rules over the facts that are there, without a model.

Only what the rules name is read: by thresholds alone, each text's origin and score, and the run's
own reason. Small shards are judged in groups, which share a file of decisions; groups are judged in
threads, one at a time in each. The view exists once all of its files are safe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.views.decide import Rules
from pipeline.views.group import Facts, decide, in_groups, in_threads, open_scores, read_group
from pipeline.views.request import (
    LARGEST,
    ViewRequest,
    is_resolved,
    resolve_rules,
    resolve_thresholds,
)
from pipeline.views.rewrite import best_by, rewrite
from shards.run.commit import Counts, FileRecord, TextCounts, total_counts
from shards.run.run import Run
from shards.run.scoring.score_set import with_scores
from shards.run.snapshot import Snapshot, SnapshotShard, write_clean_list
from shards.run.view import (
    Judging,
    Rule,
    View,
    check_view_name,
    commit_view,
    discard,
    open_view,
)
from shards.writer import TableFile, publish_file

Report = Callable[[int], None]  # hears how many more samples are done


def rejudge(
    run: Run, request: ViewRequest, snapshot: Snapshot, report: Report
) -> tuple[View, bool]:
    """Write a view, or find the same one there; returns it, and whether it is new.

    Raises ViewError for a request that cannot be met or a name that is taken by another view, and
    InputChanged where clean tars are wanted and the input is no longer what was cleaned.
    """
    check_view_name(request.name)
    counts = total_counts(shard.counts for shard in snapshot.shards)
    resolved = resolve_rules(run, request, snapshot)
    thresholds = resolve_thresholds(run, request, counts)
    if is_resolved(run, request, snapshot, thresholds, resolved.basis):
        return _opened(run, request.name), False
    shards = with_scores(run, snapshot.shards, resolved.set_names)
    facts = Facts.open(run, resolved, shards, snapshot.id)
    for origin, fraction in request.keep_fraction.items():
        total = counts.texts.get(origin, TextCounts()).given
        thresholds[origin] = fraction_threshold(facts, origin, fraction, total)
    judging = Judging(request.name)
    try:
        new = _write(facts, request, snapshot, thresholds, judging, report)
    except BaseException:
        discard(run, judging)
        raise
    if not new:  # another was first: it is the same, or an error
        is_resolved(run, request, snapshot, thresholds, resolved.basis)
    return _opened(run, request.name), new


def fraction_threshold(facts: Facts, origin: str, fraction: float, total: int) -> float:
    """Find the score of the k-th best text of an origin, k being `fraction` of all `total`.

    Only texts that a threshold decides, and that meet the condition, can be among them. Texts that
    share the score are all kept; where k is 0, the threshold lies just above the best.
    """

    def read(group: Sequence[SnapshotShard]) -> NDArray[np.float32]:
        return open_scores(read_group(facts, group), origin, facts.resolved.rules)

    found = in_threads(facts.run, read, in_groups(facts.shards))
    scores = np.concatenate([np.empty(0, np.float32), *found])
    wanted = round(fraction * total)
    if not wanted:
        best = scores.max(initial=-LARGEST if facts.resolved.reopens else np.float32(0))
        return float(np.nextafter(best, np.float32(np.inf)))
    if not len(scores):
        return 0.0
    rank = max(len(scores) - wanted, 0)
    scores.partition(rank)
    return float(scores[rank])


def _write(
    facts: Facts,
    request: ViewRequest,
    snapshot: Snapshot,
    thresholds: Mapping[str, float],
    judging: Judging,
    report: Report,
) -> bool:
    run = facts.run
    with run.store.staging() as folder:
        rules = replace(facts.resolved.rules, thresholds=thresholds)
        work = _Work(facts, judging, rules, request.write_clean, folder, report)
        groups = in_threads(run, work.judge, in_groups(facts.shards))
        judged = [shard for group in groups for shard in group]
        pairs = list(zip(facts.shards, judged, strict=True))
        shards = list(in_threads(run, work.rewrite, pairs)) if request.write_clean else judged
    texts = total_counts(shard.counts for shard in shards).texts
    recorded = {}
    for origin, threshold in sorted(thresholds.items()):
        count = texts.get(origin, TextCounts())
        share = count.kept / count.given if count.given else None
        fraction = request.keep_fraction.get(origin)
        recorded[origin] = Rule(threshold=threshold, keep_fraction=fraction, share=share)
    basis = facts.resolved.basis
    return commit_view(run, judging, snapshot.id, recorded, shards, request.write_clean, basis)


def _opened(run: Run, name: str) -> View:
    """Open a view that is there, with its list of clean tars, which is written last."""
    view, listed = open_view(run, name), f"views/{name}/clean.txt"
    if view.record and view.record.with_clean and not run.store.exists(listed):
        write_clean_list(run, listed, view.shards)
    return view


@dataclass(frozen=True, slots=True)
class _Work:
    """What the judging of shards needs."""

    facts: Facts
    judging: Judging
    rules: Rules
    write_clean: bool
    folder: Path
    report: Report

    def judge(self, shards: Sequence[SnapshotShard]) -> list[SnapshotShard]:
        """Write the decisions on a group of shards, into one file."""
        group = read_group(self.facts, shards)
        decided, counts = decide(group, self.rules)
        file = self._publish(shards[0].shard, decided)
        judged = []
        for shard, counted in zip(shards, counts, strict=True):
            there = [file for file in shard.files if file.table in ("samples", "texts")]
            judged.append(replace(shard, files=(*there, file), counts=counted))
            if not self._is_rewritten(counted):
                self.report(counted.samples_in)
        return judged

    def rewrite(self, pair: tuple[SnapshotShard, SnapshotShard]) -> SnapshotShard:
        """Write the clean tar of a shard that is judged, if it is wanted and something is kept."""
        facts, judged = pair
        if not self._is_rewritten(judged.counts):
            return judged
        path, run = self.folder / f"{judged.shard}.tar", self.facts.run
        scores = best_by(run, facts, self.rules.by.name)
        file = rewrite(run, judged, path, self.report, scores)
        name = self.judging.file_name("clean", judged.shard)
        clean = publish_file(run.store, file, "clean", name)
        return replace(judged, files=(*judged.files, clean))

    def _is_rewritten(self, counts: Counts) -> bool:
        return self.write_clean and counts.kept > 0

    def _publish(self, shard: str, decided: pa.Table) -> FileRecord:
        file = TableFile(self.folder / f"{shard}.parquet", "decisions")
        file.add_table(decided)
        name = self.judging.file_name("decisions", shard)
        return publish_file(self.facts.run.store, file, "decisions", name)
