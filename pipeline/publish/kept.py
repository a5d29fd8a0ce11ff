"""What a view of a run keeps, sample by sample: facts, texts with their scores, and the picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, cast

from pipeline.clean.export import EXTENSIONS
from pipeline.clean.facts import read_facts
from shards.naming import encode_name
from shards.run.data import read_shard
from shards.run.run import Run
from shards.run.scoring.expression import Column
from shards.run.snapshot import SnapshotShard
from shards.run.view import ITM, View
from shards.schema import JudgedTextRow, SampleRow
from shards.training.source import Part, SourceConfig
from shards.training.source_reader import open_source, read_part

FACTS = ["index", "key", "status", "reason", "width", "height", "format", "sha256", "url", "meta"]
_TEXTS = ["index", "text_no", "origin", "text", "itm", "itc"]


class ScoredTextRow(JudgedTextRow, total=False):
    """A judged text's row with the score that the view judges by, where that is not `itm`."""

    score: float | None


@dataclass(frozen=True, slots=True)
class KeptSample:
    """A kept sample: its facts, its kept texts, and its picture."""

    shard: str
    facts: SampleRow
    texts: Sequence[JudgedTextRow]
    image: bytes
    extension: str

    @property
    def key(self) -> str:
        """The sample's name: SHARD/KEY, as in the clean tars."""
        return f"{self.shard}/{encode_name(cast(str, self.facts['key']))}"


def kept_samples(run: Run, opened: View, name: str | None) -> Iterator[KeptSample]:
    """Yield all that a view keeps, shard after shard, in order."""
    shards = {shard.shard: shard for shard in opened.shards}
    if not any(shard.counts.kept for shard in shards.values()):
        return
    for part in open_source(SourceConfig(run=run.store.url(), view=name)).parts:
        yield from _of_part(run, shards[part.shard], part, opened.basis.by)


def _of_part(run: Run, shard: SnapshotShard, part: Part, by: str) -> Iterator[KeptSample]:
    facts = {row["index"]: row for row in rows_of(run, shard, "samples", FACTS)}
    for sample, (index, texts) in zip(read_part(part), kept_texts(run, shard, by), strict=True):
        row = facts[index]
        yield KeptSample(shard.shard, row, texts, sample.image, _extension(run, part, row))


def _extension(run: Run, part: Part, facts: SampleRow) -> str:
    encoded_again = part.is_clean and run.identity.get("write", {}).get("images") == "jpeg"
    return "jpg" if encoded_again else EXTENSIONS.get(facts["format"] or "", "jpg")


def texts_of(
    run: Run, shard: SnapshotShard, by: str = ITM
) -> Iterator[tuple[int, list[ScoredTextRow]]]:
    """Yield the texts of each sample, each with its decision, which stands in the same order.

    Where another score than `itm` is what the view judges by, it is each text's `score`; the shard
    has its files (see `with_scores`).
    """
    texts = rows_of(run, shard, "texts", _TEXTS)
    if by != ITM:
        scores = read_facts(run, shard, [Column(by, "number", is_score=True)])[by].to_pylist()
        texts = [text | {"score": score} for text, score in zip(texts, scores, strict=True)]
    decisions = rows_of(run, shard, "decisions", ["keep", "reason"])
    rows = (text | decision for text, decision in zip(texts, decisions, strict=True))
    for index, of_sample in groupby(rows, key=itemgetter("index")):
        yield index, list(of_sample)


def kept_texts(
    run: Run, shard: SnapshotShard, by: str = ITM
) -> Iterator[tuple[int, list[ScoredTextRow]]]:
    """Yield the kept texts of each sample that keeps any."""
    for index, texts in texts_of(run, shard, by):
        if kept := [row for row in texts if row["keep"]]:
            yield index, kept


def rows_of(run: Run, shard: SnapshotShard, table: str, columns: list[str]) -> list[Any]:
    """Read the rows of one of a shard's tables."""
    rows: list[Any] = read_shard(run, shard, table, columns).to_pylist()
    return rows
