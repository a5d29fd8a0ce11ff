"""What a view of a run keeps, sample by sample: facts, texts with their scores, and the picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, cast

from pipeline.clean.export import EXTENSIONS
from shards.naming import encode_name
from shards.run.data import read_shard
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard
from shards.run.view import View
from shards.schema import JudgedTextRow, SampleRow
from shards.training.source import Part, SourceConfig
from shards.training.source_reader import open_source, read_part

FACTS = ["index", "key", "status", "reason", "width", "height", "format", "sha256", "url", "meta"]
_TEXTS = ["index", "text_no", "origin", "text", "itm", "itc"]


@dataclass(frozen=True, slots=True)
class KeptSample:
    """A kept sample: its facts, its kept texts, and its picture."""

    shard: str
    facts: SampleRow
    texts: list[JudgedTextRow]
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
        yield from _of_part(run, shards[part.shard], part)


def _of_part(run: Run, shard: SnapshotShard, part: Part) -> Iterator[KeptSample]:
    facts = {row["index"]: row for row in rows_of(run, shard, "samples", FACTS)}
    for sample, (index, texts) in zip(read_part(part), kept_texts(run, shard), strict=True):
        row = facts[index]
        yield KeptSample(shard.shard, row, texts, sample.image, _extension(run, part, row))


def _extension(run: Run, part: Part, facts: SampleRow) -> str:
    encoded_again = part.is_clean and run.identity.get("write", {}).get("images") == "jpeg"
    return "jpg" if encoded_again else EXTENSIONS.get(facts["format"] or "", "jpg")


def texts_of(run: Run, shard: SnapshotShard) -> Iterator[tuple[int, list[JudgedTextRow]]]:
    """Yield the texts of each sample, each with its decision, which stands in the same order."""
    texts = rows_of(run, shard, "texts", _TEXTS)
    decisions = rows_of(run, shard, "decisions", ["keep", "reason"])
    rows = (text | decision for text, decision in zip(texts, decisions, strict=True))
    for index, of_sample in groupby(rows, key=itemgetter("index")):
        yield index, list(of_sample)


def kept_texts(run: Run, shard: SnapshotShard) -> Iterator[tuple[int, list[JudgedTextRow]]]:
    """Yield the kept texts of each sample that keeps any."""
    for index, texts in texts_of(run, shard):
        if kept := [row for row in texts if row["keep"]]:
            yield index, kept


def rows_of(run: Run, shard: SnapshotShard, table: str, columns: list[str]) -> list[Any]:
    """Read the rows of one of a shard's tables."""
    rows: list[Any] = read_shard(run, shard, table, columns).to_pylist()
    return rows
