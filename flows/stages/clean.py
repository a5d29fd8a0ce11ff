"""The occasion of a cleaning run, in three stages: prepare, clean the shards, finish.

The stages are plain functions. `flows.prefect_flow` wraps them for Prefect; nothing here knows it.
A stage may be done again: what is committed is the only record of what is done.
"""

import dataclasses
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from flows.engines.clean_worker import CleanRecords, CleanSpec
from flows.engines.engine import Engine, ShardDone, ShardFailed, WorkerReport
from flows.engines.local import LocalEngine
from flows.engines.pace import Pace
from flows.engines.screen_worker import ScreenSpec
from flows.engines.start_checks import Demands
from flows.recipe import (
    LimitsConfig,
    Recipe,
    ScreenRecipe,
    dump_recipe,
)
from flows.run_log.log import RunLog
from flows.stages.first_checks import Checked, check_cleaning
from flows.stages.logged import (
    LoggedProgress,
    ResultListener,
    tell_begun,
    tell_ended,
    told_to,
)
from flows.stages.resolve import Resolved, resolve
from pipeline.clean.judge import odd_thresholds
from pipeline.clean.lists import keep_lists
from pipeline.printable import number_of, tally
from pipeline.publish import cards, sets
from pipeline.report.wording import advice_on_rejected
from shards.errors import CapfiltError
from shards.inputs.candidates import NAME as CANDIDATES
from shards.inputs.listing import check_unchanged
from shards.inputs.shard import InputShard
from shards.reasons import SampleReason
from shards.run.attempt import read_quarantined
from shards.run.commit import Counts, total_counts
from shards.run.repair import set_snapshots_aside
from shards.run.run import Run
from shards.run.scoring.compaction import keep_compaction
from shards.run.scoring.distribution import keep_scores
from shards.run.segment import Committed, read_committed, write_segments
from shards.run.snapshot import write_snapshot
from shards.run.view import own_view, view_of_commits
from shards.statistics import run_statistics
from shards.store import Store, creates_once

_log = logging.getLogger(__name__)

WORKER_BYTES = 1_500_000_000  # of a worker beside its weights: torch, pictures, a batch at work
LIMITS_FROM = 1_000  # samples; a share of fewer says little


class LimitExceeded(CapfiltError, RuntimeError):  # noqa: N818 - reads as what happened
    """So much of the input is unusable that the recipe is more likely wrong than the data."""


@dataclass(frozen=True, slots=True)
class CleanJob:
    """A prepared run: what is to be done, and what is done already."""

    recipe: Recipe | ScreenRecipe
    run: Run
    spec: CleanSpec | ScreenSpec
    mine: tuple[InputShard, ...]  # this driver's part of the inputs
    pending: tuple[InputShard, ...]
    done: Counts
    log: RunLog
    committed: Committed = dataclasses.field(repr=False)  # when it was prepared


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to; the exit code follows the commits, and nothing else."""

    run_url: str
    statistics: dict[str, Any]
    failures: tuple[ShardFailed, ...]
    workers: tuple[WorkerReport, ...]
    pending_here: int  # shards that this driver should have committed, and did not

    @property
    def exit_code(self) -> int:
        """0 complete, 1 shards left pending, 3 complete with damaged or quarantined shards."""
        if self.pending_here:
            return 1
        shards = self.statistics["shards"]
        return 3 if shards["damaged"] or shards["quarantined"] else 0

    @property
    def left(self) -> str:
        """What is left pending here, why, and what to do."""
        first = self.failures[0] if self.failures else None
        why = f"; {first.shard.shard}: {first.why}" if first else ""
        return (
            f"{number_of(self.pending_here, 'shard')} still pending{why}. Run the same command "
            "again to go on"
        )


class RunListener(ResultListener, Protocol):
    """Follows the progress of the whole run."""

    def begin(self, job: CleanJob) -> None:
        """Begin to follow; the job says what is to be done."""


def prepare(
    recipe: Recipe, part: tuple[int, int] = (0, 1), checked: Checked | None = None
) -> CleanJob:
    """Check everything that can be checked before work starts, and open or create the run.

    `part` (i, n) takes every n-th shard from the i-th on, for one driver among n. `checked`: what
    the first checks have found, if they are done.
    """
    found = checked or check_cleaning(recipe)
    with found.log.hearing():
        for doubt in odd_thresholds(recipe.judge.threshold):
            _log.warning("warning: %s", doubt)
        resolved = resolve(recipe, found.store, lists=found.lists)
        return open_job(resolved, found.inputs, found.store, found.log, part)


def open_job(
    resolved: Resolved,
    inputs: Sequence[InputShard],
    store: Store,
    log: RunLog,
    part: tuple[int, int] = (0, 1),
) -> CleanJob:
    """Open or create the run, and see what is left to do."""
    recipe, engine = resolved.recipe, resolved.recipe.engine
    joined = store.exists("run.json")
    run = Run.create(store, dump_recipe(recipe), resolved.identity, resolved.about, inputs)
    if resolved.candidates is not None and not store.exists(CANDIDATES):
        store.create(CANDIDATES, resolved.candidates.to_parquet())
    keep_lists(run, resolved.lists)
    _warn_of_overwriting(store)
    committed = read_committed(run)
    write_segments(run, committed)
    commits = committed.commits
    check_unchanged(run.inputs, inputs, {name: c.input.sha256 for name, c in commits.items()})
    mine = tuple(
        run.at_hand(inputs)[part[0] :: part[1]]
    )  # as they are now: one may have been touched
    done = commits.keys() | read_quarantined(run).keys()
    pending = tuple(shard for shard in mine if shard.shard not in done)
    pace = Pace(engine.batch_size, engine.decode_threads, engine.stall_timeout_s)
    return CleanJob(
        recipe=recipe,
        run=run,
        spec=_spec(store, resolved, pace),
        mine=mine,
        pending=_from_a_random_shard(pending) if joined else pending,
        done=total_counts(c.counts for c in commits.values()),
        log=log,
        committed=committed,
    )


def _spec(store: Store, resolved: Resolved, pace: Pace) -> CleanSpec | ScreenSpec:
    recipe, weights_bytes = resolved.recipe, resolved.weights_bytes
    if isinstance(recipe, ScreenRecipe):
        return ScreenSpec(store.url(), recipe.screen, pace)
    return CleanSpec(store.url(), recipe, pace, recipe.engine.device, weights_bytes)


@dataclass(frozen=True, slots=True)
class Work:
    """What the engine came to: the shards that failed and stay pending, and what did the work."""

    failures: tuple[ShardFailed, ...] = ()
    workers: tuple[WorkerReport, ...] = ()


def clean_shards(job: CleanJob, watch: RunListener) -> Work:
    """Clean all pending shards.

    Raises LimitExceeded, and what the engine raises.
    """
    watch.begin(job)
    with told_to(job.log):
        tell_begun(job.run, job.recipe, len(job.mine), len(job.pending))
        return _clean(job, LoggedProgress(job.pending, watch)) if job.pending else Work()


def _clean(job: CleanJob, progress: ResultListener) -> Work:
    failures, counts = [], job.done
    with open_engine(job) as engine:
        for result in engine.run(job.pending, progress):
            progress.ended(result)
            if isinstance(result, ShardFailed):
                failures.append(result)
            if isinstance(result, ShardDone):
                counts += result.counts
                _check_limits(counts, job.recipe.limits)
        return Work(tuple(failures), tuple(engine.reports))


def finish(job: CleanJob, work: Work | None = None) -> RunResult:
    """Write the snapshot, if every shard is done, and count the run from its commits."""
    with told_to(job.log):
        result = _finish(job, work or Work())
        tell_ended(result.exit_code, result.statistics, result.pending_here)
    return result


def _finish(job: CleanJob, work: Work) -> RunResult:
    committed = read_committed(job.run, job.committed)
    write_segments(job.run, committed)
    commits = committed.commits
    done = commits.keys() | read_quarantined(job.run).keys()
    whole = bool(commits) and len(done) == len(job.run.inputs)
    view = view_of_commits(job.run, committed)
    if whole:
        newest = write_snapshot(job.run, committed=committed)
        keep_compaction(job.run, newest.shards, newest.id)
        keep_scores(job.run, newest.shards, newest.id)
        for action in set_snapshots_aside(job.run, newest.id, committed):
            _log.warning("%s", action)
        if len(commits) == len(job.run.inputs):  # none was put aside
            view = own_view(job.run, newest.shards, newest.id)
    pending_here = sum(shard.shard not in done for shard in job.mine)
    statistics = run_statistics(job.run, view)
    if whole and not job.run.only_screens:
        job.run.store.put(cards.NAME, sets.card_of(job.run, statistics, view).encode())
    url = job.run.store.url()
    return RunResult(url, statistics, work.failures, work.workers, pending_here)


def _warn_of_overwriting(store: Store) -> None:
    if not creates_once(store):
        _log.warning(
            "%s cannot create a file only if it is absent: of two drivers at once the last writer "
            "wins. What is read stays whole, but give the run to one driver",
            store.url(),
        )


def _from_a_random_shard(pending: tuple[InputShard, ...]) -> tuple[InputShard, ...]:
    """Turn the list for a driver that joins, so that two at once seldom do the same shard."""
    first = random.randrange(len(pending)) if pending else 0
    return pending[first:] + pending[:first]


@contextmanager
def open_engine(job: CleanJob) -> Iterator[Engine]:
    """Start the engine that the job's recipe names, or join it."""
    if job.recipe.engine.kind == "local":
        yield LocalEngine(job.spec)
        return
    from flows.engines.ray.pool import ray_pool  # seconds to import

    demands = Demands(
        run_url=job.run.store.url(),
        inputs=tuple(shard.url + "/" * (shard.kind == "folder") for shard in job.pending),
        scratch_bytes=2 * max(shard.size_bytes for shard in job.pending),
        worker_bytes=WORKER_BYTES + 2 * job.spec.weights_bytes,
    )
    with ray_pool(job.spec, CleanRecords(job.run), demands, job.recipe.engine) as pool:
        yield pool


def looked_at(samples: int, by_reason: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """Leave out of samples, and of those rejected, what the user wanted skipped: no fault of it."""
    skipped = by_reason.get(SampleReason.SKIPPED, 0)
    faults = {why: count for why, count in by_reason.items() if why != SampleReason.SKIPPED}
    return samples - skipped, faults


def _check_limits(counts: Counts, limits: LimitsConfig) -> None:
    samples, faults = looked_at(counts.samples_in, counts.rejected_by_reason)
    if samples < LIMITS_FROM:
        return
    scored = sum(origin.given for origin in counts.texts.values())
    shares = {
        "rejected": sum(faults.values()) / samples,
        "not_finite": counts.not_finite / max(scored, 1),
        "refused": counts.refused / max(scored, 1),
    }
    for name, share in shares.items():
        if share > getattr(limits, name):
            if name == "refused":
                raise LimitExceeded(
                    f"limits.refused is {limits.refused:g}, but captioners would not write "
                    f"{share:.1%} of {number_of(scored, 'text')}; `capfilt report` says why, and "
                    "so does the detail of samples with the note caption_refused. What is "
                    "committed is kept. To go on all the same: --set limits.refused=1"
                )
            apart = SampleReason.NOT_ADJACENT in faults
            raise LimitExceeded(
                f"limits.{name} is {getattr(limits, name):g}, but {share:.1%} of "
                f"{samples:,} samples are; by reason: "
                f"{tally(faults) or 'none'}. "
                f"{advice_on_rejected(is_apart=apart)}; what is committed is kept. To go on all "
                "the same: "
                f"--set limits.{name}=1"
            )
