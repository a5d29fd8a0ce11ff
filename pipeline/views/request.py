"""Resolve what decides a new view: what is asked, what the run had, and what is there already."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np

from pipeline.clean.judge import odd_thresholds
from shards.run.commit import Counts
from shards.run.run import Run
from shards.run.snapshot import Snapshot
from shards.run.view import Rule, ViewError, ViewRecord, read_view_record

_log = logging.getLogger(__name__)
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """What is asked of a new view; origins that are not named keep the run's own threshold.

    `keep_fraction` of an origin is the share of all its texts in the snapshot to keep, the best.
    """

    name: str
    threshold: Mapping[str, float] = field(default_factory=dict)
    keep_fraction: Mapping[str, float] = field(default_factory=dict)
    write_clean: bool = False


def resolve_thresholds(run: Run, request: ViewRequest, counts: Counts) -> dict[str, float]:
    """Return each origin's threshold, but where a fraction is asked for; raises ViewError."""
    run_thresholds: dict[str, float] = run.identity.get("judge", {}).get("threshold", {})
    known = sorted(run_thresholds.keys() | counts.texts.keys())
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
    for doubt in odd_thresholds(request.threshold):
        _log.warning("warning: %s", doubt)
    thresholds = {**run_thresholds, **request.threshold}
    missing = sorted(counts.texts.keys() - thresholds.keys() - request.keep_fraction.keys())
    if missing:
        raise ViewError(
            f"no threshold for texts of origin {', '.join(missing)}; given: "
            f"{', '.join(sorted(thresholds))}. Add --threshold {missing[0]}=…"
        )
    return {o: value for o, value in thresholds.items() if o not in request.keep_fraction}


def is_resolved(
    run: Run, request: ViewRequest, snapshot: Snapshot, thresholds: Mapping[str, float]
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
    if not _same_rules(record, request, thresholds):
        rules = ", ".join(f"{o} {_said(rule)}" for o, rule in sorted(record.rules.items()))
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


def _said(rule: Rule) -> str:
    asked = "" if rule.keep_fraction is None else f", the best {rule.keep_fraction:.6g}"
    return f"{rule.threshold:.6g}{asked}"
