"""Small shards are judged again many at a time: read into one table, decided at once, counted each.

A shard by itself costs more to look at than thousands of its texts: of 100,000 shards of 20 texts
each that is all there is. So a group has up to 100,000 texts, of as many shards as that takes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.clean.judge import is_open, thresholds_of
from shards.reasons import DecisionReason
from shards.run.commit import Counts, TextCounts
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard
from shards.run.view import ViewError
from shards.schema import DECISIONS

MOST_TEXTS = 100_000  # in a group, but for a shard that has more by itself

_TEXTS = ["origin", "itm"]
_DECISIONS = ["index", "text_no", "reason"]


@dataclass(frozen=True, slots=True)
class Group:
    """Shards that follow each other, with the numbers of their texts in one table.

    `texts` (origin, itm) and the run's `decisions` (shard, index, text_no, reason) on them have
    `lengths` rows of each shard.
    """

    shards: tuple[SnapshotShard, ...]
    lengths: NDArray[np.int64]
    texts: pa.Table
    decisions: pa.Table


def in_groups(shards: Sequence[SnapshotShard]) -> list[tuple[SnapshotShard, ...]]:
    """Part shards, in their order, into groups of few enough texts."""
    sizes, waiting, room = list[int](), iter(shards), 0
    for shard in shards:
        rows = shard.file("texts").rows
        if not sizes or rows > room:
            sizes.append(0)
            room = MOST_TEXTS
        sizes[-1] += 1
        room -= rows
    return [tuple(islice(waiting, size)) for size in sizes]


def read_group(run: Run, shards: Sequence[SnapshotShard]) -> Group:
    """Read what a threshold decides on; no text. Raises ViewError where the tables do not fit."""
    texts = [read_data(run, shard.file("texts"), _TEXTS) for shard in shards]
    decisions = [read_data(run, shard.file("decisions"), _DECISIONS) for shard in shards]
    for shard, given, decided in zip(shards, texts, decisions, strict=True):
        if len(given) != len(decided):
            raise ViewError(
                f"shard {shard.shard}: {len(given)} texts, but {len(decided)} decisions on them; "
                "run `capfilt verify`"
            )
    lengths = np.array([len(table) for table in texts], np.int64)
    names = pa.array([shard.shard for shard in shards], pa.string())
    column = names.take(pa.array(np.repeat(np.arange(len(shards)), lengths)))
    decided = pa.concat_tables(decisions).combine_chunks().append_column("shard", column)
    return Group(tuple(shards), lengths, pa.concat_tables(texts).combine_chunks(), decided)


def open_scores(group: Group, origin: str) -> NDArray[np.float32]:
    """Return the scores of a group's texts of one origin that a threshold decides."""
    is_judged = is_open(group.decisions["reason"])
    wanted = is_judged & pc.equal(group.texts["origin"], origin).to_numpy()
    scores = group.texts["itm"].to_numpy().astype(np.float32)[wanted]
    return scores[np.isfinite(scores)]


def redecide(texts: pa.Table, decisions: pa.Table, thresholds: Mapping[str, float]) -> pa.Table:
    """Decide texts (origin, itm) again; `decisions` are the run's on them."""
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
        "shard": decisions["shard"],
        "index": decisions["index"],
        "text_no": decisions["text_no"],
        "keep": pa.array(keep),
        "reason": pc.take(pa.array(names, pa.string()), pa.array(codes)),
    }
    return pa.table(columns).cast(DECISIONS)


def count_again(group: Group, decided: pa.Table) -> list[Counts]:
    """Count each shard by its new decisions; what became of rejected samples is a fact."""
    number = np.repeat(np.arange(len(group.shards)), group.lengths)  # of the shard of each text
    keep = decided["keep"].to_numpy()
    samples = np.unique((number[keep] << 32) + decided["index"].to_numpy()[keep])
    kept = np.bincount(samples >> 32, minlength=len(group.shards)).tolist()
    origins = group.texts["origin"].combine_chunks().dictionary_encode()
    names, shape = origins.dictionary.to_pylist(), (len(group.shards), len(origins.dictionary))
    places = number[keep] * shape[1] + origins.indices.to_numpy()[keep]
    kept_texts = np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape).tolist()
    return [
        _counted(shard.counts, samples_kept, dict(zip(names, texts_kept, strict=True)))
        for shard, samples_kept, texts_kept in zip(group.shards, kept, kept_texts, strict=True)
    ]


def _counted(facts: Counts, kept: int, texts_kept: Mapping[str, int]) -> Counts:
    return Counts(
        samples_in=facts.samples_in,
        kept=kept,
        filtered=facts.samples_in - facts.rejected - kept,
        rejected=facts.rejected,
        rejected_by_reason=facts.rejected_by_reason,
        text_reasons=facts.text_reasons,
        texts={
            origin: TextCounts(given=texts.given, kept=texts_kept.get(origin, 0))
            for origin, texts in facts.texts.items()
        },
        not_finite=facts.not_finite,
    )
