"""Resolve what decides a new view: what is asked, what the run had, and what is there already."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np

from pipeline.clean.judge import odd_thresholds
from pipeline.printable import number_of
from pipeline.views.decide import Rules
from shards.run.commit import Counts, read_commits, total_counts
from shards.run.run import Run
from shards.run.scoring.expression import (
    SAMPLE_COLUMNS,
    TEXT_COLUMNS,
    Column,
    find_column,
    parse_condition,
    score_columns,
)
from shards.run.scoring.score_set import (
    ScoresError,
    ScoreSet,
    open_score_set,
    own_scorers,
    score_set_names,
)
from shards.run.snapshot import Snapshot
from shards.run.view import (
    ITM,
    THRESHOLDS_ALONE,
    Basis,
    Rule,
    ViewError,
    ViewRecord,
    own_score,
    read_view_record,
)

_log = logging.getLogger(__name__)
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """What is asked of a new view; origins that are not named keep the run's own threshold.

    `keep_fraction` of an origin is the share of all its texts in the snapshot to keep, the best.
    `by` is the score that thresholds are on (None: the run's own), `where` a condition that must
    hold, too; with it, origins that are not named have no threshold. `prefer` names origins of
    which, in each sample, only the first that passes stays.
    """

    name: str
    threshold: Mapping[str, float] = field(default_factory=dict)
    keep_fraction: Mapping[str, float] = field(default_factory=dict)
    write_clean: bool = False
    by: str | None = None
    where: str | None = None
    prefer: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the names of a request stand for: the rules, its thresholds apart, and whose scores."""

    rules: Rules
    sets: tuple[ScoreSet, ...] = ()
    reopens: bool = False  # not the run's own score alone: what that was not of is open again

    @property
    def set_names(self) -> tuple[str, ...]:
        """The names of the sets of scores that are read."""
        return tuple(scores.name for scores in self.sets)

    @property
    def basis(self) -> Basis:
        """What the view's record says of it."""
        where = self.rules.where.text if self.rules.where else None
        fingerprints = {scores.name: scores.record.fingerprint for scores in self.sets}
        return Basis(self.rules.by.name, where, self.rules.prefer, fingerprints)


def resolve_rules(run: Run, request: ViewRequest, snapshot: Snapshot) -> Resolved:
    """Find the scores and columns that a request names.

    Raises ViewError, ExpressionError, and ScoresError for scores that are not whole.
    """
    own_by, own = own_score(run), TEXT_COLUMNS | score_columns(own_scorers(run))
    if request.where is None and request.by in (None, own_by):
        by = find_column(own_by, own)
        return Resolved(Rules(by=by, prefer=_checked_prefer(run, request, snapshot)))
    sets = [open_score_set(run, name) for name in score_set_names(run)]
    columns = own | score_columns({each.name: each.scores for each in sets})
    by = find_column(request.by or own_by, columns)
    if not by.is_score:
        raise ViewError(f"--by {by.name}: it is no score; there are: {_scores_of(columns)}")
    where = None
    if request.where is not None:
        where = parse_condition(request.where, columns | SAMPLE_COLUMNS)
    rules = Rules(by=by, where=where, prefer=_checked_prefer(run, request, snapshot))
    needed = {column.name.partition(".")[0] for column in rules.columns if "." in column.name}
    used = tuple(scores for scores in sets if scores.name in needed)
    for each in used:
        _check_whole(each, snapshot)
    return Resolved(rules, used, reopens=True)


def resolve_thresholds(run: Run, request: ViewRequest, counts: Counts) -> dict[str, float]:
    """Return each origin's threshold, but where a fraction is asked for; raises ViewError.

    The run's own stand in for what is not asked, where its own score decides alone.
    """
    run_thresholds: dict[str, float] = run.identity.get("judge", {}).get("threshold", {})
    is_other = request.by not in (None, own_score(run))
    _check_numbers(request, sorted(run_thresholds.keys() | counts.texts.keys()))
    for doubt in () if is_other else odd_thresholds(request.threshold):
        _log.warning("warning: %s", doubt)
    if request.where is not None:
        return dict(request.threshold)
    thresholds = {**({} if is_other else run_thresholds), **request.threshold}
    missing = sorted(counts.texts.keys() - thresholds.keys() - request.keep_fraction.keys())
    if missing:
        run_s = f" (the run's own are on {own_score(run)}, not {request.by})" if is_other else ""
        raise ViewError(
            f"no threshold for texts of origin {', '.join(missing)}; given: "
            f"{', '.join(sorted(thresholds)) or 'none'}{run_s}. Add --threshold {missing[0]}=…"
        )
    return {o: value for o, value in thresholds.items() if o not in request.keep_fraction}


def is_resolved(
    run: Run,
    request: ViewRequest,
    snapshot: Snapshot,
    thresholds: Mapping[str, float],
    basis: Basis = THRESHOLDS_ALONE,
) -> bool:
    """Check whether the request is fulfilled already; raises ViewError if its name is taken."""
    record = read_view_record(run, request.name)
    if record is None:
        return False
    taken = f"{run.store.url()} has a view {request.name!r} already"
    if record.snapshot != snapshot.id:
        raise ViewError(
            f"{taken}, on snapshot {record.snapshot} and not {snapshot.id}; choose another name"
        )
    if not _same_rules(record, request, thresholds) or record.basis != basis:
        rules = describe_rules(record)
        raise ViewError(f"{taken}, with other rules ({rules}); choose another name")
    if request.write_clean and not record.with_clean:
        raise ViewError(f"{taken}, without clean shards; choose another name to write them")
    return True


def _same_rules(record: ViewRecord, request: ViewRequest, thresholds: Mapping[str, float]) -> bool:
    fractions = {o: r.keep_fraction for o, r in record.rules.items() if r.keep_fraction is not None}
    recorded = {o: r.threshold for o, r in record.rules.items() if o not in fractions}
    asked = {o: t for o, t in thresholds.items() if o not in request.keep_fraction}
    return (
        fractions == request.keep_fraction
        and recorded.keys() == asked.keys()
        and all(np.float32(asked[o]) == np.float32(recorded[o]) for o in asked)
    )


def _check_numbers(request: ViewRequest, known: Sequence[str]) -> None:
    """Check the origins, thresholds and fractions that are asked for."""
    for origin in (*request.threshold, *request.keep_fraction):
        if origin not in known:
            nearest = get_close_matches(origin, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
            raise ViewError(f"no texts of origin {origin!r}{hint} there are: {', '.join(known)}")
    for origin in request.threshold.keys() & request.keep_fraction.keys():
        raise ViewError(f"both a threshold and a fraction for origin {origin!r}; give one of them")
    for origin, threshold in request.threshold.items():
        if not abs(threshold) <= LARGEST:
            raise ViewError(f"the threshold of {origin!r} should be a finite number: {threshold}")
    for origin, fraction in request.keep_fraction.items():
        if not 0 <= fraction <= 1:
            percent = f"; for {fraction:g} % give {fraction / 100:g}" if 1 < fraction <= 100 else ""
            raise ViewError(
                f"the fraction of {origin!r} should lie in 0 to 1, found {fraction:g}{percent}"
            )


def describe_rules(record: ViewRecord) -> str:
    """Write the rules of a view in one line."""
    said = [f"{origin} {_said(rule)}" for origin, rule in sorted(record.rules.items())]
    said += [f"by {record.by}"] if record.by != ITM else []
    said += [f"where {record.where}"] if record.where else []
    said += [f"the first of {', '.join(record.prefer)}"] if record.prefer else []
    return ", ".join(said)


def _checked_prefer(run: Run, request: ViewRequest, snapshot: Snapshot) -> tuple[str, ...]:
    counts = total_counts(shard.counts for shard in snapshot.shards)
    thresholds = run.identity.get("judge", {}).get("threshold", {})
    known = sorted(thresholds.keys() | counts.texts.keys())
    for origin in request.prefer:
        if origin not in known or request.prefer.count(origin) > 1:
            raise ViewError(
                f"--prefer {','.join(request.prefer)}: {origin!r} is no origin of this run, or "
                f"stands there twice; there are: {', '.join(known)}"
            )
    return request.prefer


def _check_whole(scores: ScoreSet, snapshot: Snapshot) -> None:
    done = read_commits(scores.record)
    missing = [shard.shard for shard in snapshot.shards if shard.shard not in done]
    if missing:
        raise ScoresError(
            f"the scores {scores.name!r} lack {number_of(len(missing), 'shard')} of "
            f"{len(snapshot.shards)} (the first: {missing[0]}); finish them with the command that "
            "began them"
        )


def _scores_of(columns: Mapping[str, Column]) -> str:
    return ", ".join(sorted({column.name for column in columns.values() if column.is_score}))


def _said(rule: Rule) -> str:
    asked = "" if rule.keep_fraction is None else f", the best {rule.keep_fraction:.6g}"
    return f"{rule.threshold:.6g}{asked}"
