"""A cleaned run as a source: its clean tars, or its input tars read through the decisions."""

import hashlib
import json
from collections.abc import Iterator
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any

import pyarrow.compute as pc

from shards.inputs.opening import SampleReader
from shards.inputs.reader import RawSample, State, open_shard
from shards.inputs.shard import InputShard
from shards.inputs.text import text_source
from shards.naming import encode_name
from shards.run.attempt import read_quarantined
from shards.run.commit import FileRecord, total_counts
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard, newest_snapshot_id, open_snapshot, snapshot_id
from shards.run.view import OWN, open_view
from shards.schema import SCHEMAS, check_schema, groups_of, open_parquet
from shards.training.annotation import SourceText
from shards.training.source import (
    CleanedTables,
    Part,
    Source,
    SourceConfig,
    SourceError,
    SourceSample,
    changed,
    location_of,
)

_ROWS = 1_000  # of a table, in memory at a time
_VERIFY = "`capfilt verify` tells what is wrong with the run"

Row = dict[str, Any]


def open_run(config: SourceConfig) -> Source:
    """Find a cleaned run's parts; raises SourceError, and what opening a run or view raises."""
    run = Run.open(str(config.run))
    shards = _view_shards(run, config)
    inputs = {item.shard: item for item in run.inputs}
    parts = [_run_part(run, s, inputs[s.shard], config) for s in shards if s.counts.kept]
    counts = total_counts(shard.counts for shard in shards)
    left_out = {"filtered": counts.filtered, **counts.rejected_by_reason}
    listed = {shard.shard for shard in shards}
    aside = sorted(read_quarantined(run).keys() - listed)
    damaged = {s.shard: str(s.state.state) for s in shards if s.state.damaged}
    return Source(
        name=_run_name(run, shards, parts),
        parts=tuple(parts),
        repeat=config.repeat,
        left_out={reason: count for reason, count in left_out.items() if count},
        damaged={**damaged, **dict.fromkeys(aside, "quarantined")},
    )


def check_run(config: SourceConfig) -> None:
    """Raise what `open_run` would where there is no such run, view or snapshot, or it goes on."""
    _view_shards(Run.open(str(config.run)), config)


def _view_shards(run: Run, config: SourceConfig) -> tuple[SnapshotShard, ...]:
    if config.view not in (None, OWN):
        view = open_view(run, config.view)
        if config.snapshot not in (None, view.snapshot):
            raise SourceError(
                f"{run.store.url()}: view {config.view!r} stands on snapshot {view.snapshot}, not "
                f"on {config.snapshot}; leave the snapshot out, or judge that one again"
            )
        return view.shards
    if config.snapshot is not None:
        return open_snapshot(run, config.snapshot).shards
    return _finished(run)


def _finished(run: Run) -> tuple[SnapshotShard, ...]:
    """Return the shards of the newest snapshot, which must hold all that are not put aside."""
    newest = newest_snapshot_id(run)
    shards = open_snapshot(run, newest).shards if newest is not None else ()
    done = {shard.shard for shard in shards} | read_quarantined(run).keys()
    pending = [shard for shard in run.shards if shard not in done]
    if pending or newest is None:
        some = f"; to train on a part of it, name its snapshot ({newest})" if newest else ""
        raise SourceError(
            f"{run.store.url()} is not finished: {len(pending)} of {len(run.shards)} shards stand "
            f"in no snapshot{f' (the first: {pending[0]})' if pending else ''}; run clean again "
            f"with the same recipe{some}"
        )
    return shards


def _run_part(run: Run, shard: SnapshotShard, listed: InputShard, config: SourceConfig) -> Part:
    files = {file.table: file for file in shard.files}
    clean = files.get("clean")
    if clean is None and config.read == "clean":
        raise SourceError(
            f"{run.store.url()}: view {config.view or OWN!r} has no clean tar of {shard.shard!r}; "
            "set read to auto or input, or judge with --write-shards"
        )
    if clean is not None and config.read != "input":
        return _clean_part(run, shard, clean)
    names = {table: run.store.url(files[table].name) for table in SCHEMAS}
    text = text_source(run.identity)
    kept, tables = shard.counts.kept, CleanedTables(**names)
    return Part(shard.shard, listed.url, kept, tables=tables, text=text, input=listed)


def _clean_part(run: Run, shard: SnapshotShard, clean: FileRecord) -> Part:
    url = run.store.url(clean.name)
    if clean.rows != shard.counts.kept:
        raise SourceError(
            f"{url}: has {clean.rows} samples, but {shard.counts.kept} are kept; {_VERIFY}"
        )
    return Part(shard.shard, url, clean.rows, clean.sha256, is_clean=True)


def _run_name(run: Run, shards: tuple[SnapshotShard, ...], parts: list[Part]) -> str:
    """Name the samples by their content; clean tars with pictures encoded again are another one."""
    encoded_again = run.identity.get("write", {}).get("images", "original") != "original"
    way = "+encoded_again" if encoded_again and any(part.is_clean for part in parts) else ""
    return f"run:{snapshot_id(shards)}{way}"


def read_clean(part: Part, reader: SampleReader) -> Iterator[SourceSample]:
    """Yield the samples of a clean tar, with the texts that its sidecars list."""
    for raw in reader:
        if raw.image is None or raw.meta is None:
            reason = raw.reason or "its image or sidecar is missing"
            raise changed(part, "whole samples", f"{raw.key!r}: {reason}")
        texts = _recorded_texts(part, raw.key, raw.meta)
        yield SourceSample(raw.key, raw.image, texts, location=location_of(part.url, raw))
    if reader.state.state != State.COMPLETE:
        raise changed(part, "a complete tar", f"{reader.state.state}: {reader.state.detail}")


def _recorded_texts(part: Part, key: str, meta: bytes) -> tuple[SourceText, ...]:
    try:
        rows = json.loads(meta)["texts"]
        texts = tuple(SourceText(str(row["text"]), str(row["origin"])) for row in rows)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise changed(part, f"the kept texts of {key!r}", repr(error)) from error
    if not texts:
        raise changed(part, f"the kept texts of {key!r}", "none")
    return texts


def read_judged(part: Part, tables: CleanedTables, reader: SampleReader) -> Iterator[SourceSample]:
    """Yield the kept samples of an input tar, with the kept texts of its tables."""
    raws = iter(reader)
    facts = read_rows(tables.samples, "samples", ["index", "key", "sha256"])
    for index, texts in _kept(tables, part.shard):
        fact = next((row for row in facts if row["index"] == index), None)
        if fact is None:
            raise SourceError(f"{tables.samples}: no row of sample {index}; {_VERIFY}")
        raw = next((raw for raw in raws if raw.index == index), None)
        image = _same_image(raw, fact, part)
        location = None if raw is None else location_of(part.url, raw)
        yield SourceSample(
            f"{part.shard}/{encode_name(fact['key'])}", image, texts, location=location
        )


def _kept(tables: CleanedTables, shard: str) -> Iterator[tuple[int, tuple[SourceText, ...]]]:
    """Yield the index and the kept texts of each kept sample, in order."""
    for index, rows in groupby(_decided(tables, shard), key=itemgetter("index")):
        texts = tuple(SourceText(row["text"], row["origin"]) for row in rows if row["keep"])
        if texts:
            yield index, texts


def _decided(tables: CleanedTables, shard: str) -> Iterator[Row]:
    """Yield the texts with their decisions, which stand in the same order."""
    texts = read_rows(tables.texts, "texts", ["index", "text_no", "text", "origin"])
    decisions = read_rows(tables.decisions, "decisions", ["index", "text_no", "keep"], shard)
    pairs: Iterator[tuple[Row, Row]] = zip_longest(texts, decisions, fillvalue={})
    for text, said in pairs:
        if any(text.get(name) != said.get(name) for name in ("index", "text_no")):
            raise SourceError(
                f"{tables.decisions}: not the decisions of {tables.texts}: {said or 'none'} "
                f"stands where {text or 'none'} does; {_VERIFY}"
            )
        yield {**text, "keep": said["keep"]}


def read_rows(url: str, table: str, columns: list[str], shard: str | None = None) -> Iterator[Row]:
    """Yield the rows of a table (of a file that is shared: those of one shard), a few at a time."""
    with open_shard(url) as opened, open_parquet(opened, url) as file:
        check_schema(file.schema_arrow, SCHEMAS[table], url)
        groups = None if shard is None else groups_of(file, shard)
        names = columns if shard is None else ["shard", *columns]
        # in this thread alone, as in `read_bytes`
        for batch in file.iter_batches(_ROWS, groups, names, use_threads=False):
            if shard is not None:
                batch = batch.filter(pc.equal(batch["shard"], shard)).select(columns)
            yield from batch.to_pylist()


def _same_image(raw: RawSample | None, fact: Row, part: Part) -> bytes:
    """Return a sample's image, once it is known to be the one that was judged."""
    expected = f"key {fact['key']!r}, image sha256 {fact['sha256']} as sample {fact['index']}"
    if raw is None or raw.image is None:
        raise changed(part, expected, "no such sample")
    sha256 = hashlib.sha256(raw.image).hexdigest()
    if raw.key != fact["key"] or fact["sha256"] not in (None, sha256):
        raise changed(part, expected, f"key {raw.key!r}, image sha256 {sha256}")
    return raw.image
