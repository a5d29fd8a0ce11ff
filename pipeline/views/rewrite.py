"""Write the clean tar of one shard again, from the input shard, for decisions made anew.

It goes through `clean_sample` as the run itself did, so that equal decisions give equal bytes. No
more than one sample's files are held at a time.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from pipeline.clean.export import Provenance, WriteConfig, clean_sample, encode_jpeg
from pipeline.clean.facts import read_facts
from pipeline.clean.screen import ScreenConfig
from pipeline.media.decode import DecodeLimits, DecodeRefusal, decode
from shards.inputs.listing import DIVIDED_OTHERWISE
from shards.inputs.opening import open_samples
from shards.inputs.reader import RawSample
from shards.inputs.shard import InputChanged
from shards.inputs.text import text_source
from shards.run.run import Run
from shards.run.scoring.expression import Column
from shards.run.snapshot import SnapshotShard
from shards.run.view import ITM
from shards.schema import DecisionRow, SampleRow, TextRow
from shards.training.run_source import read_rows
from shards.writer import CleanFile


def rewrite(
    run: Run,
    shard: SnapshotShard,
    path: Path,
    report: Callable[[int], None],
    scores: Sequence[float | None] | None = None,
) -> CleanFile:
    """Write the kept samples of a shard to a new tar at `path`, still to be closed.

    `scores` of all its texts, in their order, say which is the best (default: `itm`). `report`
    hears of more samples as they are passed. Raises InputChanged where a sample of the input is not
    the one that the tables tell of.
    """
    clean = CleanFile(path, shard.shard)
    try:
        _fill(clean, run, shard, report, scores)
    except BaseException:
        clean.sink.discard()
        raise
    return clean


def best_by(run: Run, shard: SnapshotShard, by: str) -> list[float | None] | None:
    """Read the scores that say which of a shard's texts is the best; None where `itm` does."""
    if by == ITM:
        return None
    column = Column(by, "number", is_score=True)
    scores: list[float | None] = read_facts(run, shard, [column])[by].to_pylist()
    return scores


def _fill(
    clean: CleanFile,
    run: Run,
    shard: SnapshotShard,
    report: Callable[[int], None],
    scores: Sequence[float | None] | None,
) -> None:
    config = WriteConfig.model_validate(run.identity.get("write", {}))
    source = Provenance(shard.shard, run.fingerprint, run.identity.get("seed", 0))
    listed = next(item for item in run.inputs if item.shard == shard.shard)
    passed = 0
    with open_samples(listed, text_source(run.identity)) as reader:
        raws = iter(reader)
        facts: Iterator[SampleRow] = _rows(
            run, shard, "samples", ["index", "key", "sha256", "format", "meta"]
        )
        for index, kept in _kept(run, shard, scores):
            row = next(row for row in facts if row["index"] == index)
            raw = next((raw for raw in raws if raw.index == index), None)
            image = _same_image(raw, row, f"input shard {shard.shard!r} ({listed.url})")
            if config.images == "jpeg":
                image = _as_jpeg(image, row, run)
            clean.add(clean_sample(row, kept, image, config, source))
            report(index + 1 - passed)
            passed = index + 1
    report(shard.counts.samples_in - passed)


def _kept(
    run: Run, shard: SnapshotShard, scores: Sequence[float | None] | None
) -> Iterator[tuple[int, list[TextRow]]]:
    """Yield the index and the kept texts of each kept sample, in order."""
    columns = ["index", "text", "origin", "itm", "itc"]
    texts: Iterator[Any] = _rows(run, shard, "texts", columns)
    decisions: Iterator[DecisionRow] = _rows(run, shard, "decisions", ["keep"])
    if scores is not None:
        texts = (row | {"score": score} for row, score in zip(texts, scores, strict=True))
    pairs = zip(texts, decisions, strict=True)
    kept = (text for text, decision in pairs if decision["keep"])
    for index, rows in groupby(kept, key=itemgetter("index")):
        yield index, list(rows)


def _rows(run: Run, shard: SnapshotShard, table: str, columns: list[str]) -> Iterator[Any]:
    """Yield the rows of one of the shard's tables, a few in memory at a time."""
    only = shard.shard if table == "decisions" else None  # a view's file of them may be shared
    return read_rows(run.store.url(shard.file(table).name), table, columns, only)


def _same_image(raw: RawSample | None, row: SampleRow, where: str) -> bytes:
    """Return a sample's image; InputChanged unless it is the one that was judged."""
    expected = f"key {row['key']!r}, image sha256 {row['sha256']}"
    there = "no such sample"
    if raw is not None and raw.image is not None:
        sha256 = hashlib.sha256(raw.image).hexdigest()
        if (raw.key, sha256) == (row["key"], row["sha256"]):
            return raw.image
        there = f"key {raw.key!r}, image sha256 {sha256}"
    raise InputChanged(
        f"{where} changed since it was cleaned: sample {row['index']} should be {expected}; "
        f"found {there}; restore it, or judge without clean shards. {DIVIDED_OTHERWISE}"
    )


def _as_jpeg(image: bytes, row: SampleRow, run: Run) -> bytes:
    """Encode a picture as the run did, within its limits; one that it could read can be read."""
    screen = ScreenConfig.model_validate(run.identity["screen"])
    decoded = decode(image, DecodeLimits(screen.min_side, screen.max_pixels, screen.max_aspect))
    if isinstance(decoded, DecodeRefusal):
        raise InputChanged(
            f"the image of {row['key']!r} was decoded by the run, and is now refused: "
            f"{decoded.reason} ({decoded.detail}); use the Pillow that the run used"
        )
    return encode_jpeg(decoded.image)
