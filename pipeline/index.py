"""Index pictures and texts by their ITC embeddings, for search in both directions.

    INDEX/
      current              the name of the build that counts; replaced in one step, at the very end
      BUILD/
        index.json         model, digest, kind of index, counts
        images.faiss       images.parquet      vectors, and facts in the same order
        texts.faiss        texts.parquet       each text once, as the model reads it
        features.parquet   the vectors themselves, if they were asked for

A build that is killed leaves `current`, and what it names, as they were.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
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
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from models.roles.retrieval import Retriever
from models.tokenizer import normalise
from pipeline import nearest
from pipeline.decode import Limits, Refusal, decode
from shards.annotation import annotated_texts
from shards.listing import list_inputs
from shards.naming import encode_name
from shards.reader import ShardReader, State, open_shard
from shards.schema import SampleReason
from shards.source import Place, Source
from shards.source_reader import place_of, read_part

VERSION = 1
LOCK = "lock"  # who builds holds it
CURRENT, RECORD, FEATURES = "current", "index.json", "features.parquet"
_UNFINISHED = "unfinished-"
_BUILD = re.compile(r"[0-9a-f]{16}")
_ROW_GROUP = 10_000
LIMITS = Limits(min_side=1, max_pixels=178_956_970, max_aspect=float("inf"))

Which = Literal["images", "texts"]
BOTH: tuple[Which, ...] = ("images", "texts")

_COLUMNS: dict[Which, pa.Schema] = {
    "images": pa.schema(
        [
            ("key", pa.string()),
            ("url", pa.string()),
            ("offset", pa.int64()),
            ("size_bytes", pa.int64()),
        ]
    ),
    "texts": pa.schema(
        [("text", pa.string()), ("origin", pa.string()), ("image", pa.int64())]  # the first one's
    ),
}


class IndexFault(ValueError):  # noqa: N818 - Python has an IndexError of its own
    """An index that cannot be built or read as it was asked for."""


class IndexConfig(BaseModel):
    """How an index is built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto", "flat", "ivf"] = Field("auto", description="auto: ivf for many vectors")
    batch_size: int = Field(32, ge=1, description="pictures in one pass of the model")
    features: bool = Field(False, description="write the vectors as Parquet, too")


@dataclass(frozen=True, slots=True)
class Item:
    """A picture and its texts, each with its origin; where `reason` is set it cannot be used."""

    key: str
    image: bytes
    texts: tuple[tuple[str, str], ...]
    place: Place | None
    reason: str | None = None


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


def items_of_run(source: Source) -> Iterator[Item]:
    """Yield the kept samples of an opened run, each with its kept texts."""
    for part in source.parts:
        for sample in read_part(part):
            texts = tuple((text.text, text.origin) for text in sample.texts)
            yield Item(sample.key, sample.image, texts, sample.place)


def items_of_tars(urls: Sequence[str]) -> Iterator[Item]:
    """Yield the samples of tars as they are; a picture without a text is found all the same."""
    for shard in list_inputs(urls):
        with open_shard(shard.url) as file:
            reader = ShardReader(file)
            for raw in reader:
                key = f"{shard.shard}/{encode_name(raw.key)}"
                reason = raw.reason or (None if raw.image else SampleReason.IMAGE_MISSING)
                texts = tuple((text.text, text.origin) for text in annotated_texts(raw)[0])
                yield Item(key, raw.image or b"", texts, place_of(shard.url, raw), reason)
            if reader.state.state not in (State.COMPLETE, State.TRUNCATED):
                yield Item(shard.shard, b"", (), None, f"shard_{reader.state.state}")


def build(
    folder: Path,
    items: Iterable[Item],
    retriever: Retriever,
    about: dict[str, Any],
    config: IndexConfig,
) -> dict[str, Any]:
    """Build an index in the place of what is there; give its record.

    `about` goes into the record: the model's name and what was indexed. Only one process may build
    in a folder at a time.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)
    name = secrets.token_hex(8)
    place = folder / f"{_UNFINISHED}{name}"
    place.mkdir()
    left_out: Counter[str] = Counter()
    counts = _spool(place, items, retriever, config.batch_size, left_out)
    if not counts["images"]:
        shutil.rmtree(place)
        raise IndexFault(
            f"{folder}: no picture to index (left out: {dict(left_out)}); the old index stays"
        )
    vectors = {which: _vectors(place, which, counts[which]) for which in BOTH}
    record = {
        "version": VERSION,
        **about,
        "model_digest": retriever.digest,
        "images": _finish(place, vectors, "images", config),
        "texts": _finish(place, vectors, "texts", config),
        "left_out": dict(left_out),
    }
    if config.features:
        _write_features(place, vectors)
    for which in BOTH:
        (place / f"{which}.f32").unlink()
    (place / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
    _put(folder, place, name)
    return record


def check_folder(folder: Path) -> None:
    """Raise IndexFault where a folder holds what no index wrote: a build removes old ones."""
    for path in folder.iterdir() if folder.is_dir() else ():
        ours = _BUILD.fullmatch(path.name) or path.name.startswith((CURRENT, _UNFINISHED))
        if not ours and path.name != LOCK:
            raise IndexFault(
                f"{folder} holds {path.name}, which belongs to no index; give a new folder, or an "
                "index's own"
            )


def _spool(
    place: Path,
    items: Iterable[Item],
    retriever: Retriever,
    batch_size: int,
    left_out: Counter[str],
) -> dict[Which, int]:
    """Embed pictures and texts, and write vectors and facts."""
    known: set[bytes] = set()  # hashes of texts that have a vector
    with ExitStack() as stack:
        spools = {which: _open_spool(stack, place, which) for which in BOTH}
        rest = iter(items)
        while batch := list(islice(rest, batch_size)):
            usable = [(item, found) for item in batch if (found := _look(item, left_out))]
            if not usable:
                continue
            first = spools["images"].count
            pixels = torch.stack([retriever.preprocess.resize(found) for _, found in usable])
            facts = [_image_row(item) for item, _ in usable]
            spools["images"].add(retriever.look(pixels).unit, facts)
            rows = list(_new_texts([item for item, _ in usable], first, known))
            if rows:
                spools["texts"].add(retriever.read([row["text"] for row in rows]).unit, rows)
        for spool in spools.values():
            spool.flush()
        return {which: spool.count for which, spool in spools.items()}


def _open_spool(stack: ExitStack, place: Path, which: Which) -> _Spool:
    schema = _COLUMNS[which]
    file = stack.enter_context((place / f"{which}.f32").open("wb"))
    writer = stack.enter_context(pq.ParquetWriter(place / f"{which}.parquet", schema))
    return _Spool(file, writer, schema)


def _look(item: Item, left_out: Counter[str]) -> Any:  # noqa: ANN401 - a PIL image or None
    """Decode an item's picture; or count why it cannot be used."""
    found = item.reason or decode(item.image, LIMITS)
    if isinstance(found, str | Refusal):
        left_out[str(found if isinstance(found, str) else found.reason)] += 1
        return None
    return found.image


def _image_row(item: Item) -> dict[str, Any]:
    place = asdict(item.place) if item.place else {"url": None, "offset": None, "size_bytes": None}
    return {"key": item.key, **place}


def _new_texts(items: Sequence[Item], first: int, known: set[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the texts that no picture before had, as the model reads them."""
    for number, item in enumerate(items, first):
        for text, origin in item.texts:
            clean = normalise(text)
            mark = hashlib.blake2b(clean.encode(), digest_size=16).digest()
            if clean and mark not in known:
                known.add(mark)
                yield {"text": text, "origin": origin, "image": number}


def _vectors(place: Path, which: Which, count: int) -> nearest.Vectors:
    if not count:
        return np.zeros((0, 1), np.float32)
    found = np.memmap(place / f"{which}.f32", np.float32, "r")
    return found.reshape(count, -1)


def _finish(
    place: Path, vectors: dict[Which, nearest.Vectors], which: Which, config: IndexConfig
) -> dict[str, Any]:
    """Build one index file; give its part of the record."""
    own, others = vectors[which], vectors["texts" if which == "images" else "images"]
    many = len(own) > nearest.FLAT_UP_TO
    kind: nearest.Kind = ("ivf" if many else "flat") if config.kind == "auto" else config.kind
    if len(own) < nearest.FEWEST_FOR_CELLS:
        kind = "flat"
    index = nearest.build(own, kind)
    found: dict[str, Any] = {"count": len(own), "kind": kind}
    if kind == "ivf":
        probes, recall = nearest.tune(index, own, others if len(others) else own)
        found |= {"cells": nearest.cells(len(own)), "probes": probes, "recall@10": round(recall, 4)}
    nearest.write(index, place / f"{which}.faiss")
    return found


def _write_features(place: Path, vectors: dict[Which, nearest.Vectors]) -> None:
    """Write all vectors with their facts: kind, key or text, and a list of fixed length."""
    width = vectors["images"].shape[1]
    schema = pa.schema(
        [
            ("kind", pa.string()),
            ("key", pa.string()),
            ("text", pa.string()),
            ("vector", pa.list_(pa.float32(), width)),
        ]
    )
    with pq.ParquetWriter(place / FEATURES, schema) as writer:
        for which in BOTH:
            column = {"images": "key", "texts": "text"}[which]
            first = 0
            facts = pq.ParquetFile(place / f"{which}.parquet")
            for batch in facts.iter_batches(_ROW_GROUP, columns=[column]):
                own = np.ascontiguousarray(vectors[which][first : first + len(batch)])
                first += len(batch)
                names, none = batch.column(0), pa.nulls(len(batch), pa.string())
                kind = pa.array([which.removesuffix("s")] * len(batch))
                flat = pa.FixedSizeListArray.from_arrays(pa.array(own.ravel()), width)
                texts = (names, none) if which == "images" else (none, names)
                writer.write_table(pa.Table.from_arrays([kind, *texts, flat], schema=schema))


def _put(folder: Path, place: Path, name: str) -> None:
    """Make a build the one that counts, in one step; the one before it stays for who reads it."""
    for path in (*place.iterdir(), place):
        _sync(path)
    place.rename(folder / name)
    before = current(folder)
    pointer = folder / f"{CURRENT}.{name}"
    pointer.write_text(name)
    _sync(pointer)
    pointer.replace(folder / CURRENT)
    _sync(folder)
    for old in folder.iterdir():
        if _BUILD.fullmatch(old.name) and old.name not in (name, before):
            shutil.rmtree(old)


def current(folder: Path) -> str | None:
    """Name the build that counts; None if there is none."""
    try:
        return (folder / CURRENT).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
