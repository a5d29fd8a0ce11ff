"""Index pictures and texts by their ITC embeddings, for search in both directions.

A build (`index_folder`) holds, beside its record:

    images.faiss       images.parquet      vectors, and facts in the same order
    texts.faiss        texts.parquet       each text once, as the model reads it
    features.parquet   the vectors themselves, if they were asked for

Vectors are spooled to disk, so that memory holds one index at a time, and a hash of each text.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field
from torch import Tensor

from models.blip.tokenizer import normalise
from models.roles.retrieval import TEXTS_AT_ONCE, Retriever
from pipeline.config import Config
from pipeline.media.ahead import load_batches
from pipeline.media.pictures import resized
from pipeline.search import faiss_index
from pipeline.search.index_folder import IndexFolderError, new_build, write_record
from shards.inputs.listing import list_inputs
from shards.inputs.reader import RawSample, State
from shards.inputs.samples import read_samples
from shards.inputs.shard import InputShard
from shards.naming import encode_name
from shards.reasons import SampleReason, TextReason
from shards.training.annotation import annotated_texts
from shards.training.source import PictureLocation, Source, location_of
from shards.training.source_reader import read_part

FEATURES = "features.parquet"
MAX_TEXT_BYTES = 10_000  # as `clean` takes them by default
_ROW_GROUP = 10_000

Which = Literal["images", "texts"]
BOTH: tuple[Which, ...] = ("images", "texts")

_PICTURE = [
    ("key", pa.string()),
    ("sha256", pa.string()),  # of the picture's bytes
    ("url", pa.string()),
    ("offset", pa.int64()),
    ("size_bytes", pa.int64()),
]
_COLUMNS: dict[Which, pa.Schema] = {
    "images": pa.schema(_PICTURE),
    # with the first picture that it stood with
    "texts": pa.schema([("text", pa.string()), ("origin", pa.string()), *_PICTURE]),
}


class IndexConfig(Config):
    """How an index is built."""

    kind: Literal["auto", "flat", "ivf"] = Field("auto", description="auto: ivf for many vectors")
    batch_size: int = Field(32, ge=1, description="pictures in one pass of the model")
    features: bool = Field(False, description="write the vectors as Parquet, too")


@dataclass(frozen=True, slots=True)
class IndexItem:
    """A picture and its texts, each with its origin; where `reason` is set it cannot be used.

    `text_reason` says why there are no texts. `share_read`: of the bytes of all tars, up to here;
    None where samples do not come out of tars.
    """

    key: str
    image: bytes
    texts: tuple[tuple[str, str], ...]
    location: PictureLocation | None
    reason: str | None = None
    text_reason: str | None = None
    share_read: float | None = None


@dataclass(slots=True)
class _Spool:
    """Vectors on their way to disk, with their facts, so that memory does not grow with them."""

    file: BinaryIO
    writer: pq.ParquetWriter
    schema: pa.Schema
    count: int = 0
    waiting: list[dict[str, Any]] = field(default_factory=list)

    def add(self, vectors: Tensor, facts: Sequence[dict[str, Any]]) -> None:
        self.file.write(vectors.cpu().numpy().astype(np.float32).tobytes())
        self.count += len(facts)
        self.waiting += facts
        if len(self.waiting) >= _ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        self.writer.write_table(pa.Table.from_pylist(self.waiting, self.schema))
        self.waiting = []


def items_of_run(source: Source) -> Iterator[IndexItem]:
    """Yield the kept samples of an opened run, each with its kept texts."""
    for part in source.parts:
        for sample in read_part(part):
            texts = tuple((text.text, text.origin) for text in sample.texts)
            yield IndexItem(sample.key, sample.image, texts, sample.location)


def items_of_tars(urls: Sequence[str]) -> Iterator[IndexItem]:
    """Yield the samples of tars as they are; a picture without a text is found all the same.

    The tars are listed at once, with InputError; each is read when its turn comes.
    """
    return _items(list_inputs(urls))


def _items(shards: Sequence[InputShard]) -> Iterator[IndexItem]:
    for shard, sample, share in read_samples(shards):
        if isinstance(sample, RawSample):
            yield _item(shard, sample, share)
        elif sample.state not in (State.COMPLETE, State.TRUNCATED):
            yield IndexItem(shard.shard, b"", (), None, f"shard_{sample.state}", share_read=share)


def _item(shard: InputShard, raw: RawSample, share: float) -> IndexItem:
    reason = raw.reason or (None if raw.image else SampleReason.IMAGE_MISSING)
    annotated, text_reason = annotated_texts(raw)
    return IndexItem(
        key=f"{shard.shard}/{encode_name(raw.key)}",
        image=raw.image or b"",
        texts=tuple((text.text, text.origin) for text in annotated),
        location=location_of(shard.url, raw),
        reason=reason,
        text_reason=text_reason or None,
        share_read=share,
    )


def build(
    folder: Path,
    items: Iterable[IndexItem],
    retriever: Retriever,
    about: dict[str, Any],
    config: IndexConfig,
) -> dict[str, Any]:
    """Build an index in the place of what is there, and return its record.

    `about` goes into the record: the model's name and what was indexed. Only one process may build
    in a folder at a time. Raises IndexFolderError where there is no picture, or the folder is no
    index's.
    """
    with new_build(folder) as files:
        record = _write(files, items, retriever, config)
        if not record["images"]["count"]:
            raise IndexFolderError(
                f"{folder}: no picture to index (left out: {record['left_out']})"
            )
        return write_record(files, about | {"model_digest": retriever.digest} | record)


def _write(
    folder: Path, items: Iterable[IndexItem], retriever: Retriever, config: IndexConfig
) -> dict[str, Any]:
    """Write the files of a build, but its record; return what that says of them."""
    left_out: Counter[str] = Counter()
    counts = _spool(folder, items, retriever, config.batch_size, left_out)
    vectors = {which: _vectors(folder, which, counts[which]) for which in BOTH}
    record: dict[str, Any] = {which: _write_index(folder, vectors, which, config) for which in BOTH}
    if config.features:
        _write_features(folder, vectors)
    for which in BOTH:
        (folder / f"{which}.f32").unlink()
    return record | {"left_out": dict(left_out)}


def _spool(
    folder: Path,
    items: Iterable[IndexItem],
    retriever: Retriever,
    batch_size: int,
    left_out: Counter[str],
) -> dict[Which, int]:
    """Embed pictures and texts, and write vectors and facts."""

    def load(item: IndexItem) -> Tensor | str:
        return item.reason or resized(item.image, retriever.preprocess)

    embedded: set[bytes] = set()  # hashes of texts that have a vector
    with ExitStack() as stack:
        spools = {which: _open_spool(stack, folder, which) for which in BOTH}
        for batch, pixels in load_batches(items, load, batch_size, left_out, _image_bytes):
            images = retriever.encode_images(torch.stack(pixels))
            spools["images"].add(images.unit, [_picture_row(item) for item in batch])
            new_texts = _new_texts(batch, embedded, left_out)
            while rows := list(islice(new_texts, TEXTS_AT_ONCE)):
                texts = retriever.encode_texts([row["text"] for row in rows])
                spools["texts"].add(texts.unit, rows)
        for spool in spools.values():
            spool.flush()
        return {which: spool.count for which, spool in spools.items()}


def _open_spool(stack: ExitStack, folder: Path, which: Which) -> _Spool:
    schema = _COLUMNS[which]
    file = stack.enter_context((folder / f"{which}.f32").open("wb"))
    writer = stack.enter_context(pq.ParquetWriter(folder / f"{which}.parquet", schema))
    return _Spool(file, writer, schema)


def _image_bytes(item: IndexItem) -> int:
    return len(item.image)


def _picture_row(item: IndexItem) -> dict[str, Any]:
    nowhere = dict.fromkeys(("url", "offset", "size_bytes"))
    location = asdict(item.location) if item.location else nowhere
    return {"key": item.key, "sha256": hashlib.sha256(item.image).hexdigest(), **location}


def _new_texts(
    items: Iterable[IndexItem], embedded: set[bytes], left_out: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Yield the texts that no picture before had, as the model reads them."""
    for item in items:
        if item.text_reason is not None:
            left_out[item.text_reason] += 1
        for text, origin in item.texts:
            if len(text.encode()) > MAX_TEXT_BYTES:
                left_out[str(TextReason.TOO_LONG)] += 1
                continue
            clean = normalise(text)
            digest = hashlib.blake2b(clean.encode(), digest_size=16).digest()
            if not clean:
                left_out[str(TextReason.EMPTY)] += 1
            elif digest not in embedded:
                embedded.add(digest)
                yield {"text": text, "origin": origin, **_picture_row(item)}


def _vectors(folder: Path, which: Which, count: int) -> faiss_index.Vectors:
    if not count:
        return np.zeros((0, 1), np.float32)
    return np.memmap(folder / f"{which}.f32", np.float32, "r").reshape(count, -1)


def _write_index(
    folder: Path, vectors: dict[Which, faiss_index.Vectors], which: Which, config: IndexConfig
) -> dict[str, Any]:
    """Build and write one index file; return its part of the record."""
    indexed, queries = vectors[which], vectors["texts" if which == "images" else "images"]
    count = len(indexed)
    many = count > faiss_index.FLAT_UP_TO
    kind: faiss_index.Kind = ("ivf" if many else "flat") if config.kind == "auto" else config.kind
    if count < faiss_index.FEWEST_FOR_CELLS:
        kind = "flat"
    index = faiss_index.build(indexed, kind)
    record: dict[str, Any] = {"count": count, "kind": kind}
    if kind == "ivf":
        probes, recall = faiss_index.tune(index, indexed, queries if len(queries) else indexed)
        cells = faiss_index.cells(count)
        record |= {"cells": cells, "probes": probes, "recall@10": round(recall, 4)}
    faiss_index.write(index, folder / f"{which}.faiss")
    return record


def _write_features(folder: Path, vectors: dict[Which, faiss_index.Vectors]) -> None:
    """Write all vectors with their facts: kind, key, text, and a list of fixed length."""
    width = vectors["images"].shape[1]
    facts = [("kind", pa.string()), ("key", pa.string()), ("text", pa.string())]
    schema = pa.schema([*facts, ("vector", pa.list_(pa.float32(), width))])
    with pq.ParquetWriter(folder / FEATURES, schema) as writer:
        for which in BOTH:
            columns = ["key"] if which == "images" else ["key", "text"]
            first = 0
            rows = pq.ParquetFile(folder / f"{which}.parquet")
            for batch in rows.iter_batches(_ROW_GROUP, columns=columns):
                count = len(batch)
                numbers = np.ascontiguousarray(vectors[which][first : first + count]).ravel()
                first += count
                kind = pa.repeat(which.removesuffix("s"), count)
                text = pa.nulls(count, pa.string()) if which == "images" else batch["text"]
                vector = pa.FixedSizeListArray.from_arrays(pa.array(numbers), width)
                columns_of_batch = [kind, batch["key"], text, vector]
                writer.write_table(pa.Table.from_arrays(columns_of_batch, schema=schema))
