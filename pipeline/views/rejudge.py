"""Judge a finished run again: other rules over the facts that are there, without a model.

Only what the rules name is read: by thresholds alone, each text's origin and score, and the run's
own reason. Shards are judged in threads, one at a time in each; the view exists once all of its
files are safe.
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

from pipeline.clean.facts import read_facts
from pipeline.clean.judge import JudgeConfig, is_open
from pipeline.media.ahead import read_ahead
from pipeline.views.decide import ITM, Rules, passing, redecide, reopened, scores_of
from pipeline.views.request import (
    LARGEST,
    Resolved,
    ViewRequest,
    is_resolved,
    resolve_rules,
    resolve_thresholds,
)
from pipeline.views.rewrite import rewrite
from shards.reasons import DecisionReason
from shards.run.commit import Counts, FileRecord, TextCounts, total_counts
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.scoring.score_set import with_scores
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
    resolved = resolve_rules(run, request, snapshot)
    thresholds = resolve_thresholds(run, request, counts)
    if is_resolved(run, request, snapshot, thresholds, resolved.basis):
        return _opened(run, request.name), False
    facts = Facts(run, resolved, with_scores(run, snapshot.shards, resolved.set_names))
    for origin, fraction in request.keep_fraction.items():
        total = counts.texts.get(origin, TextCounts()).given
        thresholds[origin] = fraction_threshold(facts, origin, fraction, total)
    judging = Judging(request.name)
    try:
        new = _write(facts, request, snapshot, thresholds, judging, report)
    except BaseException:
        discard(run, judging, (shard.shard for shard in snapshot.shards))
        raise
    if not new:  # another was first: it is the same, or an error
        is_resolved(run, request, snapshot, thresholds, resolved.basis)
    return _opened(run, request.name), new


@dataclass(frozen=True, slots=True)
class Facts:
    """What a view is judged by: shards with the scores that its rules name."""

    run: Run
    resolved: Resolved
    shards: Sequence[SnapshotShard]

    def read(self, shard: SnapshotShard) -> tuple[pa.Table, pa.Table]:
        """Read the facts on a shard's texts, and the run's own decisions, open again if need be."""
        texts = read_facts(self.run, shard, self.resolved.rules.columns)
        decisions = _read(self.run, shard, "decisions", ["index", "text_no", "reason"])
        if len(texts) != len(decisions):
            raise ViewError(
                f"shard {shard.shard}: {len(texts)} texts, but {len(decisions)} decisions on them; "
                "run `capfilt verify`"
            )
        if self.resolved.reopens and _not_finite(decisions):
            config = JudgeConfig.model_validate(self.run.identity.get("judge", {}))
            whole = _read(self.run, shard, "texts", ["shard", "index", "author", "text"])
            decisions = reopened(whole, decisions, config)
        return texts, decisions

    def open_scores(self, origin: str, shard: SnapshotShard) -> NDArray[np.float32]:
        """Read the scores of a shard's texts of one origin that a threshold decides."""
        texts, decisions = self.read(shard)
        rules = self.resolved.rules
        wanted = is_open(decisions["reason"]) & pc.equal(texts["origin"], origin).to_numpy()
        scores = scores_of(texts, rules.by)[wanted & passing(texts, rules)]
        return scores[~np.isnan(scores)]


def fraction_threshold(facts: Facts, origin: str, fraction: float, total: int) -> float:
    """Find the score of the k-th best text of an origin, k being `fraction` of all `total`.

    Only texts that a threshold decides, and that meet the condition, can be among them. Texts that
    share the score are all kept; where k is 0, the threshold lies just above the best.
    """
    scores = np.concatenate(
        [
            np.empty(0, np.float32),
            *_in_threads(partial(facts.open_scores, origin), facts.shards),
        ]
    )
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
    with facts.run.store.staging() as folder:
        rules = replace(facts.resolved.rules, thresholds=thresholds)
        work = _Work(facts, judging, rules, request.write_clean, folder, report)
        shards = _in_threads(work.judge, facts.shards)
    texts = total_counts(shard.counts for shard in shards).texts
    recorded = {}
    for origin, threshold in sorted(thresholds.items()):
        count = texts.get(origin, TextCounts())
        share = count.kept / count.given if count.given else None
        fraction = request.keep_fraction.get(origin)
        recorded[origin] = Rule(threshold=threshold, keep_fraction=fraction, share=share)
    basis = facts.resolved.basis
    return commit_view(
        facts.run, judging, snapshot.id, recorded, shards, request.write_clean, basis
    )


def _opened(run: Run, name: str) -> View:
    """Open a view that is there, with its list of clean tars, which is written last."""
    view, listed = open_view(run, name), f"views/{name}/clean.txt"
    if view.record and view.record.with_clean and not run.store.exists(listed):
        write_clean_list(run, listed, view.shards)
    return view


@dataclass(frozen=True, slots=True)
class _Work:
    """What the judging of each shard needs."""

    facts: Facts
    judging: Judging
    rules: Rules
    write_clean: bool
    folder: Path
    report: Report

    def judge(self, shard: SnapshotShard) -> SnapshotShard:
        """Write the decisions of one shard, and its clean tar if wanted."""
        texts, decisions = self.facts.read(shard)
        decided = redecide(shard.shard, texts, decisions, self.rules)
        counts = _counted(shard.counts, texts["origin"], decided)
        written = [file for file in shard.files if file.table in ("samples", "texts")]
        written.append(self._publish(shard.shard, decided))
        judged = replace(shard, files=tuple(written), counts=counts)
        if self.write_clean and counts.kept:  # there is no tar where nothing is kept
            scores = None if self.rules.by == ITM else texts[self.rules.by.name].to_pylist()
            return replace(judged, files=(*written, self._rewrite(judged, scores)))
        self.report(counts.samples_in)
        return judged

    def _publish(self, shard: str, decided: pa.Table) -> FileRecord:
        file = TableFile(self.folder / f"{shard}.parquet", "decisions")
        file.add_table(decided)
        name = self.judging.file_name("decisions", shard)
        return publish_file(self.facts.run.store, file, "decisions", name)

    def _rewrite(self, judged: SnapshotShard, scores: Sequence[float | None] | None) -> FileRecord:
        path = self.folder / f"{judged.shard}.tar"
        file = rewrite(self.facts.run, judged, path, self.report, scores)
        name = self.judging.file_name("clean", judged.shard)
        return publish_file(self.facts.run.store, file, "clean", name)


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
        not_finite=_not_finite(decided),
        refused=facts.refused,  # it lies in the text
    )


def _not_finite(decisions: pa.Table) -> int:
    scoreless = pc.equal(decisions["reason"], DecisionReason.SCORE_NOT_FINITE)
    return pc.sum(scoreless).as_py() or 0


def _read(run: Run, shard: SnapshotShard, table: str, columns: list[str]) -> pa.Table:
    return read_data(run, next(file for file in shard.files if file.table == table), columns)


def _in_threads(
    work: Callable[[SnapshotShard], Result], shards: Sequence[SnapshotShard]
) -> list[Result]:
    """Do the work on every shard; after a failure nothing more is begun."""
    ahead = read_ahead(shards, work, lambda _: 0, len(shards), threads=THREADS)
    return [result for _, result in ahead]
