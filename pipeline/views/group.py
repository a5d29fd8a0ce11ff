"""Small shards are judged again many at a time: read into one table, decided at once, counted each.

A shard by itself costs more to look at than thousands of its texts: of 100,000 shards of 20 texts
each that is all there is. So a group has up to 100,000 texts, of as many shards as that takes.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.clean.facts import read_facts
from pipeline.clean.judge import JudgeConfig, is_open
from pipeline.media.ahead import read_ahead
from pipeline.views.decide import Numbers, Rules, passing, redecide, reopened, scores_of
from pipeline.views.request import Resolved
from shards.errors import DamagedFile
from shards.reasons import DecisionReason
from shards.run.commit import Counts, TextCounts
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.scoring.compaction import SCORES, Compaction, open_compaction
from shards.run.snapshot import SnapshotShard
from shards.run.view import ViewError

_log = logging.getLogger(__name__)
_THREADS = 4  # reading and writing let others run
_REMOTE_THREADS = 16  # an object store answers many at once
Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_TEXTS = 100_000  # in a group, but for a shard that has more by itself

_PLACED = ["index", "text_no", "reason"]
_DECISIONS = ["shard", *_PLACED]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a view is judged by: shards with the scores that its rules name."""

    run: Run
    resolved: Resolved
    shards: Sequence[SnapshotShard]
    compaction: Compaction | None = None

    @classmethod
    def open(
        cls, run: Run, resolved: Resolved, shards: Sequence[SnapshotShard], snapshot: str
    ) -> "Facts":
        """Open the facts on shards: compacted ones, if these are there and hold what is read."""
        columns = {column.name for column in resolved.rules.columns}
        opens_again = resolved.reopens and any(shard.counts.not_finite for shard in shards)
        if opens_again or not columns <= set(SCORES):
            return cls(run, resolved, shards)
        return cls(run, resolved, shards, open_compaction(run, shards, snapshot))

    def read(self, shard: SnapshotShard) -> tuple[pa.Table, pa.Table]:
        """Read the facts on a shard's texts, and the run's own decisions, open again if need be.

        Raises ViewError where the tables do not fit.
        """
        texts = read_facts(self.run, shard, self.resolved.rules.columns)
        decisions = read_data(self.run, shard.file("decisions"), _DECISIONS)
        if len(texts) != len(decisions):
            raise ViewError(
                f"shard {shard.shard}: {len(texts)} texts, but {len(decisions)} decisions on them; "
                "run `capfilt verify`"
            )
        if self.resolved.reopens and shard.counts.not_finite:
            config = JudgeConfig.model_validate(self.run.identity.get("judge", {}))
            columns = ["shard", "index", "author", "text"]
            whole = read_data(self.run, shard.file("texts"), columns)
            decisions = reopened(whole, decisions, config)
        return texts, decisions


@dataclass(frozen=True, slots=True)
class Group:
    """Shards that follow each other, with the facts on their texts in one table.

    `texts` and the run's `decisions` on them have `lengths` rows of each shard.
    """

    shards: tuple[SnapshotShard, ...]
    lengths: NDArray[np.int64]
    texts: pa.Table
    decisions: pa.Table

    @property
    def places(self) -> Numbers:
        """Which of the shards each text is of."""
        return np.repeat(np.arange(len(self.shards)), self.lengths)

    def samples(self) -> Numbers:
        """Number the sample of each text, over all of the shards."""
        sizes = [shard.counts.samples_in for shard in self.shards]
        begins = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        return np.asarray(begins[self.places] + self.decisions["index"].to_numpy())


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


def read_group(facts: Facts, shards: Sequence[SnapshotShard]) -> Group:
    """Read what the rules look at; raises ViewError where the tables do not fit."""
    if facts.compaction is not None:
        try:
            return _read_compacted(facts, facts.compaction, shards)
        except DamagedFile as error:
            _log.warning("tables are read one by one, which is slower: %s", error)
    read = [facts.read(shard) for shard in shards]
    lengths = np.array([len(texts) for texts, _ in read], np.int64)
    texts = pa.concat_tables([texts for texts, _ in read]).combine_chunks()
    decisions = pa.concat_tables([decisions for _, decisions in read]).combine_chunks()
    return Group(tuple(shards), lengths, texts, decisions)


def _read_compacted(facts: Facts, compaction: Compaction, shards: Sequence[SnapshotShard]) -> Group:
    lengths = np.array([shard.file("texts").rows for shard in shards], np.int64)
    scores = sorted(column.name for column in facts.resolved.rules.columns)
    rows = compaction.read(shards, [*_PLACED, "origin", *scores]).combine_chunks()
    names = pa.array([shard.shard for shard in shards], pa.string())
    decisions = rows.select(_PLACED).add_column(
        0, "shard", pc.take(names, pa.array(np.repeat(np.arange(len(shards)), lengths)))
    )
    return Group(tuple(shards), lengths, rows.select(["origin", *scores]), decisions)


def open_scores(group: Group, origin: str, rules: Rules) -> NDArray[np.float32]:
    """Return the scores of a group's texts of one origin that a threshold decides."""
    wanted = is_open(group.decisions["reason"])
    wanted = wanted & pc.equal(group.texts["origin"], origin).to_numpy()
    scores = scores_of(group.texts, rules.by)[wanted & passing(group.texts, rules)]
    return scores[~np.isnan(scores)]


def decide(group: Group, rules: Rules) -> tuple[pa.Table, list[Counts]]:
    """Decide a group's texts again, and count each of its shards by that."""
    samples = group.samples()
    decided = redecide(group.texts, group.decisions, rules, samples)
    return decided, count_again(group, decided, samples)


def count_again(group: Group, decided: pa.Table, samples: Numbers) -> list[Counts]:
    """Count each shard by new decisions on a group's texts, of these `samples`.

    What became of rejected samples is a fact.
    """
    count, number = len(group.shards), group.places
    keep = decided["keep"].to_numpy()
    _, first = np.unique(samples[keep], return_index=True)
    kept = np.bincount(number[keep][first], minlength=count).tolist()

    def with_reason(reason: DecisionReason) -> list[int]:
        there = pc.equal(decided["reason"], reason).to_numpy()
        return list(np.bincount(number[there], minlength=count).tolist())

    not_finite = with_reason(DecisionReason.SCORE_NOT_FINITE)
    refused = with_reason(DecisionReason.CAPTION_REFUSED)
    origins = group.texts["origin"].combine_chunks().dictionary_encode()
    names, shape = origins.dictionary.to_pylist(), (count, len(origins.dictionary))
    cells = number[keep] * shape[1] + origins.indices.to_numpy()[keep]
    kept_texts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).tolist()
    return [
        _counted(shard.counts, kept[at], dict(zip(names, of_origin, strict=True))).model_copy(
            update={"not_finite": not_finite[at], "refused": refused[at]}
        )
        for at, (shard, of_origin) in enumerate(zip(group.shards, kept_texts, strict=True))
    ]


def _counted(facts: Counts, kept: int, kept_texts: Mapping[str, int]) -> Counts:
    return Counts(
        samples_in=facts.samples_in,
        kept=kept,
        filtered=facts.samples_in - facts.rejected - kept,
        rejected=facts.rejected,
        rejected_by_reason=facts.rejected_by_reason,
        text_reasons=facts.text_reasons,
        texts={
            origin: TextCounts(given=texts.given, kept=kept_texts.get(origin, 0))
            for origin, texts in facts.texts.items()
        },
    )


def in_threads(run: Run, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Do the work on every item, in order; after a failure nothing more is begun."""
    threads = _THREADS if run.store.is_local else _REMOTE_THREADS
    for _, result in read_ahead(items, work, lambda _: 0, 2 * threads, threads=threads):
        yield result
