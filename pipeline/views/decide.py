"""Decide the texts of shards again, by the rules of a view.

A reason that lies in the text itself stays. The rest is kept where the view's condition holds, and
its score is not below the threshold of the text's origin; a score that is missing passes nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.clean.judge import (
    JudgeConfig,
    Mask,
    is_open,
    of_first_origin,
    text_reasons,
    thresholds_of,
)
from pipeline.views.condition import evaluate
from shards.reasons import DecisionReason
from shards.run.scoring.expression import TEXT_COLUMNS, Column, Condition
from shards.schema import DECISIONS

Numbers = NDArray[np.int64]

ITM = TEXT_COLUMNS["itm"]
_NO_LIMIT = -np.inf


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides a view: thresholds on a score, by origin; a condition; which origin comes first.

    Origins without a threshold are decided by the condition alone. With `prefer`, of a sample's
    texts that pass only those of the first of these origins stay (others come last, together).
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    by: Column = ITM
    where: Condition | None = None
    prefer: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the run's own score decides alone, as in a cleaning."""
        return self.by == ITM and self.where is None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that it reads of the facts."""
        named = self.where.columns if self.where else ()
        return tuple(dict.fromkeys((*named, self.by)))


def redecide(
    facts: pa.Table, decisions: pa.Table, rules: Rules, samples: Numbers | None = None
) -> pa.Table:
    """Decide texts; `decisions` are the run's own on them, or reopened ones.

    `samples` numbers the sample of each text; those of one shard have their index.
    """
    if samples is None:
        samples = decisions["index"].to_numpy()
    reasons = decisions["reason"].combine_chunks().dictionary_encode()
    run_reasons = reasons.dictionary.to_pylist()
    below = DecisionReason.ITM_BELOW_THRESHOLD
    if not rules.is_plain:
        below = DecisionReason.SCORE_BELOW_THRESHOLD
    decided = [
        DecisionReason.KEPT,
        below,
        DecisionReason.SCORE_NOT_FINITE,
        DecisionReason.NOT_PREFERRED,
    ]
    kept, too_low, not_finite, not_preferred = range(
        len(run_reasons), len(run_reasons) + len(decided)
    )
    is_judged = is_open(decisions["reason"])
    keep = is_judged & passing(facts, rules)
    codes = np.where(is_judged, np.where(keep, kept, too_low), reasons.indices.to_numpy())
    codes[is_judged & ~keep & _not_finite(facts, rules)] = not_finite
    if rules.prefer:
        preferred = keep & of_first_origin(facts["origin"], samples, keep, rules.prefer)
        codes[keep & ~preferred], keep = not_preferred, preferred
    columns = {
        "shard": decisions["shard"],
        "index": decisions["index"],
        "text_no": decisions["text_no"],
        "keep": pa.array(keep),
        "reason": pc.take(pa.array([*run_reasons, *decided], pa.string()), pa.array(codes)),
    }
    return pa.table(columns).cast(DECISIONS)


def passing(facts: pa.Table, rules: Rules) -> Mask:
    """Mark the texts that the condition and the thresholds let pass."""
    passed = np.ones(len(facts), dtype=bool)
    if rules.where is not None:
        facts_there = _only_finite(facts, rules)
        true = pc.fill_null(evaluate(rules.where.root, facts_there), False)
        passed = true.to_numpy(zero_copy_only=False).astype(bool)
    if rules.thresholds:
        # of origins without one, all pass: NaN, too, and what is missing
        open_ended = dict.fromkeys(facts["origin"].unique().to_pylist(), _NO_LIMIT)
        given = dict(rules.thresholds) if rules.is_plain else open_ended | dict(rules.thresholds)
        least = thresholds_of(facts["origin"], given)
        with np.errstate(invalid="ignore"):
            passed &= (scores_of(facts, rules.by) >= least) | (least == _NO_LIMIT)
    return passed


def scores_of(facts: pa.Table, by: Column) -> NDArray[np.float32]:
    """Return a score as numbers: NaN for what is missing or not finite."""
    scores = facts[by.name].to_numpy().astype(np.float32)
    return np.where(np.isfinite(scores), scores, np.float32(np.nan))


def reopened(shard_texts: pa.Table, decisions: pa.Table, config: JudgeConfig) -> pa.Table:
    """Let another score decide where the run's own was not finite, unless the text has a fault.

    `shard_texts` are whole rows of the texts table.
    """
    open_again = pc.equal(decisions["reason"], DecisionReason.SCORE_NOT_FINITE)
    of_texts = pa.array(text_reasons(shard_texts, config), pa.string())
    reasons = pc.if_else(open_again, of_texts, decisions["reason"])
    return decisions.set_column(decisions.column_names.index("reason"), "reason", reasons)


def _named_scores(rules: Rules) -> Iterator[Column]:
    named = list(rules.where.columns) if rules.where else []
    yield from (column for column in named if column.is_score)
    if rules.thresholds:
        yield rules.by


def _not_finite(facts: pa.Table, rules: Rules) -> Mask:
    """Mark the texts of which a score that the rules name is there, and is not finite."""
    bad = np.zeros(len(facts), dtype=bool)
    for column in _named_scores(rules):
        finite = pc.fill_null(pc.is_finite(facts[column.name]), True)
        bad |= ~finite.to_numpy(zero_copy_only=False).astype(bool)
    return bad


def _only_finite(facts: pa.Table, rules: Rules) -> pa.Table:
    """Make null what is not finite: nothing that is compared with it is true, or false."""
    for column in _named_scores(rules):
        values = facts[column.name]
        place = facts.column_names.index(column.name)
        facts = facts.set_column(
            place,
            column.name,
            pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type)),
        )
    return facts
