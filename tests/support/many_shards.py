"""Runs of very many small shards, made fast: real tables, hashes and commits, and no model.

Every file is what the product's writer makes, but written plainly: no sync, no look at it again.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from functools import cache
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.clean.judge import JudgeConfig, judge
from shards.inputs.reader import ShardState, State
from shards.inputs.shard import InputShard
from shards.run.commit import Commit, Counts, FileRecord, InputRecord, TextCounts, data_name
from shards.run.content import ContentHash
from shards.run.record import write_record
from shards.run.run import Run
from shards.schema import SAMPLES, SCHEMAS, TEXTS
from shards.store import Store

ORIGINS = ("web", "synthetic")
IDENTITY = {"judge": {"threshold": dict.fromkeys(ORIGINS, 0.5)}, "write": {"clean": "none"}}
ENVIRONMENT = {
    "host": "host-0",
    "device": "cpu",
    "dtype": "fp32",
    "batch_size": 16,
    "images_per_s": 12.5,
    "safe_mode": False,
    "threads": 1,
    "torch": "2.13.0",
}
_SCORES = 16  # shards by turns have these


def make_many(url: str, shards: int, samples: int, processes: int = 1) -> Run:
    """Make a run of shards without pictures, all of them committed, and no snapshot yet."""
    inputs = [InputShard(f"/absent/{n:06}.tar", f"{n:06}", 1, None, 0.0) for n in range(shards)]
    run = Run.create(Store(url), "", IDENTITY, {}, inputs)
    commit_many(run, run.inputs, samples, processes)
    return run


def commit_many(run: Run, inputs: Sequence[InputShard], samples: int, processes: int = 1) -> None:
    """Commit these shards of a run, with so many samples in each."""
    names = [f"data/{table}" for table in SCHEMAS] + ["commits"]
    for name in names:
        run.store.fs.makedirs(run.store.path(name), exist_ok=True)
    parts = [(run, inputs[first::processes], samples) for first in range(processes)]
    if processes == 1:
        _write_part(*parts[0])
        return
    with get_context("fork").Pool(processes) as pool:
        pool.starmap(_write_part, parts)


def _write_part(run: Run, inputs: Sequence[InputShard], samples: int) -> None:
    for item in inputs:
        for name, data in _files_of(run, item, samples):
            run.store.fs.pipe_file(run.store.path(name), data)


def _files_of(run: Run, item: InputShard, samples: int) -> Iterator[tuple[str, bytes]]:
    """Yield the files of one shard, its commit last."""
    digest = hashlib.sha256(item.shard.encode())
    attempt, kind = digest.hexdigest()[:16], digest.digest()[0] % _SCORES
    tables, records = _tables(kind, samples), []
    for table, schema in SCHEMAS.items():
        shard = pa.repeat(pa.scalar(item.shard, pa.string()), len(tables[table]))
        rows = tables[table].set_column(0, schema.field(0), shard)
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, compression="zstd", write_page_checksum=True)
        data, name = buffer.getvalue(), data_name(table, item.shard, attempt)
        yield name, data
        sha256 = hashlib.sha256(data).hexdigest()
        content = _content(rows) if table == "texts" else None
        records.append(
            FileRecord(
                table=table,
                name=name,
                size_bytes=len(data),
                sha256=sha256,
                rows=len(rows),
                content_sha256=content,
            )
        )
    done = Commit(
        shard=item.shard,
        fingerprint=run.fingerprint,
        attempt=attempt,
        input=InputRecord(
            url=item.url, size_bytes=item.size_bytes, mtime=item.mtime, sha256="0" * 64
        ),
        state=ShardState(state=State.COMPLETE),
        files=tuple(records),
        counts=_counts(kind, samples),
        environment=ENVIRONMENT,
        started="2026-01-01T00:00:00.000000+00:00",
        ended="2026-01-01T00:00:01.000000+00:00",
    )
    yield f"commits/{item.shard}.json", write_record(done.model_dump(mode="json"))


def _content(texts: pa.Table) -> str:
    content = ContentHash()
    for row in texts.to_pylist():
        content.add_text(row)
    return content.hexdigest()


@cache
def _tables(kind: int, samples: int) -> dict[str, pa.Table]:
    """Make the rows of a shard, with scores as skewed as a filter's; SHARD is filled in later."""
    scores = np.random.default_rng(kind).beta(0.6, 0.4, 2 * samples).astype(np.float32)
    rows, texts = [], []
    for index in range(samples):
        key, web = f"{index:09}", f"a picture of {index}"
        rows.append({"shard": "", "index": index, "key": key, "status": "ok", "web_text": web})
        for text_no, text in enumerate((web, key)):
            place = {"shard": "", "index": index, "text_no": text_no, "text": text}
            itm = float(scores[2 * index + text_no])
            texts.append({**place, "origin": ORIGINS[text_no], "itm": itm})
    table = pa.Table.from_pylist(texts, schema=TEXTS)
    return {
        "samples": pa.Table.from_pylist(rows, schema=SAMPLES),
        "texts": table,
        "decisions": judge(table, JudgeConfig()),
    }


@cache
def _counts(kind: int, samples: int) -> Counts:
    keep = np.array(_tables(kind, samples)["decisions"]["keep"]).reshape(samples, 2)
    kept = int(keep.any(axis=1).sum())
    texts = {
        origin: TextCounts(given=samples, kept=int(keep[:, number].sum()))
        for number, origin in enumerate(ORIGINS)
    }
    return Counts(
        samples_in=samples, kept=kept, filtered=samples - kept, texts=dict(sorted(texts.items()))
    )
