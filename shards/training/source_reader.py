"""How sources of training samples are opened, and how their parts are read."""

import hashlib
import json
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any

import pyarrow.parquet as pq

from shards.inputs.listing import InputShard, list_inputs
from shards.inputs.reader import RawSample, ShardReader, State, open_shard
from shards.naming import encode_name
from shards.reasons import SampleReason
from shards.run.attempt import read_quarantined
from shards.run.commit import FileRecord, total_counts
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard, newest_snapshot_id, open_snapshot, snapshot_id
from shards.run.view import OWN, open_view
from shards.schema import SCHEMAS, check_schema
from shards.store import filesystem, url_of
from shards.training.annotation import SourceText, annotated_texts
from shards.training.annotation_file import Annotation, Annotations, read_annotations, read_picture
from shards.training.dialogue_file import pictures_by_number
from shards.training.source import (
    AnnotatedRows,
    CleanedTables,
    Part,
    PictureLocation,
    Source,
    SourceConfig,
    SourceError,
    SourceSample,
    changed,
)

_ROWS = 1_000  # of a table, in memory at a time
_LOOKED_AT = 10  # rows of an annotation file whose pictures are looked for at once
_ANNOTATIONS_PER_PART = 256  # parts are shuffled, and dealt to lanes
_VERIFY = "`capfilt verify` tells what is wrong with the run"

Row = dict[str, Any]


def open_source(config: SourceConfig) -> Source:
    """Find a source's parts and count its samples; human-annotated tars are read through for it.

    Raises SourceError, and what opening a run, a view, annotations or a list of shards raises.
    """
    if config.annotations is not None:
        source = _open_annotations(config.annotations, config)
    else:
        source = _open_run(config) if config.shards is None else _open_shards(config)
    if not source.rows:
        where = config.run or config.annotations or ", ".join(config.shards or ())
        raise SourceError(
            f"{where}: no sample to train on; left out: {source.left_out or 'none'}, damaged: "
            f"{source.damaged or 'none'}"
        )
    return source


def read_part(part: Part) -> Generator[SourceSample, None, None]:
    """Yield a part's samples in the order of its tar, one in memory at a time.

    Raises InputChanged if they are not those that the source was opened with.
    """
    if part.listed is not None:
        yield from _listed(part, part.listed)
        return
    count = 0
    with open_shard(part.url) as file:
        reader = ShardReader(file)
        for sample in _samples(part, reader):
            count += 1
            if count > part.rows:
                raise changed(part, f"{part.rows} samples", "more of them")
            yield sample
        if count != part.rows:
            raise changed(part, f"{part.rows} samples", f"{count}")
        if part.sha256 is not None and reader.sha256 != part.sha256:
            raise changed(part, f"sha256 {part.sha256}", reader.sha256)


def _samples(part: Part, reader: ShardReader) -> Iterator[SourceSample]:
    if part.tables is not None:
        return _judged(part, part.tables, reader)
    return _clean(part, reader) if part.is_clean else _annotated(part.shard, reader, Counter())


# --- a run


def _open_run(config: SourceConfig) -> Source:
    run = Run.open(str(config.run))
    shards = _view_shards(run, config)
    urls = {item.shard: item.url for item in run.inputs}
    parts = [_run_part(run, s, urls[s.shard], config) for s in shards if s.counts.kept]
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


def _run_part(run: Run, shard: SnapshotShard, url: str, config: SourceConfig) -> Part:
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
    return Part(shard.shard, url, shard.counts.kept, tables=CleanedTables(**names))


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


def _clean(part: Part, reader: ShardReader) -> Iterator[SourceSample]:
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


def _judged(part: Part, tables: CleanedTables, reader: ShardReader) -> Iterator[SourceSample]:
    raws = iter(reader)
    facts = _rows(tables.samples, "samples", ["index", "key", "sha256"])
    for index, texts in _kept(tables):
        fact = next((row for row in facts if row["index"] == index), None)
        if fact is None:
            raise SourceError(f"{tables.samples}: no row of sample {index}; {_VERIFY}")
        raw = next((raw for raw in raws if raw.index == index), None)
        image = _same_image(raw, fact, part)
        location = None if raw is None else location_of(part.url, raw)
        yield SourceSample(
            f"{part.shard}/{encode_name(fact['key'])}", image, texts, location=location
        )


def _kept(tables: CleanedTables) -> Iterator[tuple[int, tuple[SourceText, ...]]]:
    """Yield the index and the kept texts of each kept sample, in order."""
    for index, rows in groupby(_decided(tables), key=itemgetter("index")):
        texts = tuple(SourceText(row["text"], row["origin"]) for row in rows if row["keep"])
        if texts:
            yield index, texts


def _decided(tables: CleanedTables) -> Iterator[Row]:
    """Yield the texts with their decisions, which stand in the same order."""
    texts = _rows(tables.texts, "texts", ["index", "text_no", "text", "origin"])
    decisions = _rows(tables.decisions, "decisions", ["index", "text_no", "keep"])
    pairs: Iterator[tuple[Row, Row]] = zip_longest(texts, decisions, fillvalue={})
    for text, said in pairs:
        if any(text.get(name) != said.get(name) for name in ("index", "text_no")):
            raise SourceError(
                f"{tables.decisions}: not the decisions of {tables.texts}: {said or 'none'} "
                f"stands where {text or 'none'} does; {_VERIFY}"
            )
        yield {**text, "keep": said["keep"]}


def _rows(url: str, table: str, columns: list[str]) -> Iterator[Row]:
    """Yield the rows of a table, a few in memory at a time."""
    with open_shard(url) as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
        check_schema(file.schema_arrow, SCHEMAS[table], url)
        # in this thread alone, as in Run.open
        for batch in file.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
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


# --- human-annotated tars


def _open_shards(config: SourceConfig) -> Source:
    left_out: Counter[str] = Counter()
    parts, damaged, lines = [], {}, []
    for listed in list_inputs(config.shards or (), config.root):
        part, state = _counted(listed, left_out)
        lines.append(f"{part.shard}\t{part.sha256}\n")
        if state != State.COMPLETE:
            damaged[part.shard] = str(state)
        if part.rows:
            parts.append(part)
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Source(f"shards:{digest[:32]}", tuple(parts), config.repeat, dict(left_out), damaged)


def _counted(listed: InputShard, left_out: Counter[str]) -> tuple[Part, State]:
    with open_shard(listed.url) as file:
        reader = ShardReader(file)
        rows = sum(1 for _ in _annotated(listed.shard, reader, left_out))
    return Part(listed.shard, listed.url, rows, reader.sha256), reader.state.state


def _annotated(shard: str, reader: ShardReader, left_out: Counter[str]) -> Iterator[SourceSample]:
    """Yield what can be used of a human-annotated tar, and count what cannot."""
    for raw in reader:
        texts, text_reason = annotated_texts(raw)
        if raw.reason is not None:
            left_out[raw.reason] += 1
        elif not raw.image:
            empty = raw.image is not None
            left_out[SampleReason.IMAGE_EMPTY if empty else SampleReason.IMAGE_MISSING] += 1
        elif not texts:
            left_out[text_reason] += 1
        else:
            yield SourceSample(f"{shard}/{encode_name(raw.key)}", raw.image, texts)


def location_of(url: str, raw: RawSample) -> PictureLocation | None:
    """Return where a sample's image lies in its tar."""
    if raw.image is None or raw.image_offset is None:
        return None
    return PictureLocation(url, raw.image_offset, len(raw.image))


def read_picture_at(location: PictureLocation) -> bytes:
    """Read a picture's bytes where they lie; empty where the file is gone or too short.

    Whether they are still the same picture only who decodes them can say.
    """
    fs, path = filesystem(location.url)
    try:
        data: bytes = fs.cat_file(
            path, start=location.offset, end=location.offset + location.size_bytes
        )
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return b""
    return data if len(data) == location.size_bytes else b""


# --- annotation files


def _open_annotations(url: str, config: SourceConfig) -> Source:
    annotations = read_annotations(url)
    fs, path = filesystem(url)
    folder, _, name = path.rpartition("/")
    images = url_of(*filesystem(config.images)) if config.images else url_of(fs, folder)
    _check_pictures(url, images, annotations)
    shard, size = encode_name(name.removesuffix(".json")), _ANNOTATIONS_PER_PART
    parts = tuple(
        Part(
            shard,
            url_of(fs, path),
            min(size, len(annotations.rows) - first),
            annotations.sha256,
            listed=AnnotatedRows(images, first),
        )
        for first in range(0, len(annotations.rows), size)
    )
    name = f"annotations:{annotations.sha256[:32]}"
    return Source(name, parts, config.repeat, annotations.left_out, {}, annotations.kind)


def _check_pictures(url: str, images: str, annotations: Annotations) -> None:
    """Raise SourceError if none of the first pictures is there: the folder is another one."""
    rows = annotations.rows[:_LOOKED_AT]
    if rows and not any(next(_pictures(images, annotations, row)) for row in rows):
        raise SourceError(
            f"{url}: none of the pictures of its first {len(rows)} rows is in {images} (the first: "
            f"{rows[0].pictures[0]}); set images to the folder that these names start from"
        )


def _listed(part: Part, listed: AnnotatedRows) -> Iterator[SourceSample]:
    annotations = read_annotations(part.url)
    if annotations.sha256 != part.sha256:
        raise changed(part, f"sha256 {part.sha256}", annotations.sha256)
    for number in range(listed.first, listed.first + part.rows):
        row = annotations.rows[number]
        image, *right = _pictures(listed.images, annotations, row)
        key = f"{part.shard}/{number:09d}"
        yield SourceSample(key, image, row.texts, right[0] if right else None)


def _pictures(images: str, annotations: Annotations, row: Annotation) -> Iterator[bytes]:
    """Read a row's pictures; one that is missing is empty."""
    for name in row.pictures:
        if annotations.kind == "dialogues":
            path = pictures_by_number(images).get(int(name))
            yield b"" if path is None else read_picture(images, path)
        else:
            yield read_picture(images, name)
