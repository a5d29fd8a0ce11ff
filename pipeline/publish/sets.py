"""Export a clean set: as WebDataset or Parquet with the pictures in it, or as an index without.

An export is made aside and gets its name once it is whole, its card written last. A kill leaves
what was made aside, and the same command starts over. What is exported is a snapshot, under a view:
never whatever lies in the run's folders.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from pipeline.decode import Refusal, decode
from pipeline.export import EXTENSIONS, choose_text, encode_jpeg
from pipeline.pictures import LIMITS
from pipeline.publish.cards import dataset_card, write_dataset_card
from pipeline.publish.files import PLAIN, Files, Tables, Tars
from pipeline.publish.kept import FACTS, Kept, Row, kept_samples, rows_of, texts_of
from pipeline.recorded import recorded_model
from shards.run import Run
from shards.snapshot import SnapshotShard
from shards.statistics import run_statistics
from shards.view import View, open_view

Form = Literal["webdataset", "parquet", "index"]

RECORD = "export.json"


class ExportFault(ValueError):  # noqa: N818 - reads as what happened
    """An export that cannot be made as it was asked for."""


class ExportConfig(BaseModel):
    """What an export looks like."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Form = "webdataset"
    file_bytes: int = Field(512 << 20, ge=1, description="of a file's pictures, about")
    text_policy: Literal["web_first", "best", "random"] = "web_first"


def export(run: Run, folder: Path, config: ExportConfig, view: str | None = None) -> dict[str, Any]:
    """Export what a view keeps (default: the run's own decisions) into a new folder.

    Gives the record, which `export.json` holds too; a folder that holds this very export is left as
    it is. Raises ExportFault, SourceError, ViewError, SnapshotError.
    """
    opened = open_view(run, view)
    if opened.snapshot is None:
        raise ExportFault(
            f"{run.store.url()} is not finished: no snapshot lists it; run clean again with the "
            "same recipe"
        )
    record = _identity(run, opened, config)
    if (found := _already(folder, record)) is not None:
        return found
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "data").mkdir(parents=True)
    if config.form == "index":
        images, rows = "not included", _write_index(run, opened, aside / "data", config)
    else:
        images, rows = _write_set(run, opened, aside / "data", config)
    record |= {"rows": rows, "images": images}
    files = {"webdataset": "data/*.tar"}.get(config.form, "data/*.parquet")
    about = record | {
        "files": files if rows else None,
        "statistics": run_statistics(run, opened),
        "models": models_of(run),
        "thresholds": opened.thresholds,
    }
    (aside / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
    write_dataset_card(aside, about)
    for path in sorted(aside.rglob("*")):
        _sync(path)
    aside.rename(folder)
    _sync(folder.parent)
    return record


def card_of(run: Run, statistics: Mapping[str, Any]) -> str:
    """Write the card of a finished run's own clean set, which lies in its folder."""
    opened = open_view(run)
    as_jpeg = run.identity.get("write", {}).get("images") == "jpeg"
    about = {
        "form": "run",
        "fingerprint": run.fingerprint,
        "snapshot": opened.snapshot,
        "view": None,
        "rows": statistics["kept"],
        "images": "encoded again as JPEG" if as_jpeg else "as they came in",
        "files": None,
        "statistics": statistics,
        "models": models_of(run),
        "thresholds": opened.thresholds,
    }
    return dataset_card(about)


def models_of(run: Run) -> dict[str, dict[str, str]]:
    """Name the captioner and the filter of a run, with their digests."""
    roles: tuple[Literal["captioner", "filter"], ...] = ("captioner", "filter")
    found = {role: recorded_model(run, role) for role in roles}
    return {role: {"name": one.name, "digest": one.digest} for role, one in found.items()}


def _write_set(run: Run, opened: View, data: Path, config: ExportConfig) -> tuple[str, int]:
    """Write pictures and texts; say what became of the pictures, and count."""
    formats = _formats(run, opened)
    # `datasets` wants the same members in every sample of a WebDataset: one type of picture
    as_jpeg = config.form == "webdataset" and len(formats) > 1
    files: Files = (
        Tars(data, config.file_bytes)
        if config.form == "webdataset"
        else Tables(data, config.file_bytes)
    )
    rows = 0
    for kept in kept_samples(run, opened, opened.name):
        seed = f"{run.identity.get('seed', 0)}/{kept.shard}/{kept.facts['key']}"
        text = choose_text(kept.texts, config.text_policy, seed)["text"]
        files.add(_as_jpeg(kept) if as_jpeg else kept, text)
        rows += 1
    files.close()
    if as_jpeg:
        return f"encoded again as JPEG, for they were {', '.join(sorted(formats))}", rows
    return "as they came in", rows


def _formats(run: Run, opened: View) -> set[str]:
    """List the types of the kept pictures, by the tables alone."""
    found: Counter[str] = Counter()
    if run.identity.get("write", {}).get("images") == "jpeg":
        return {"jpg"}
    for shard in opened.shards:
        facts = {row["index"]: row["format"] for row in rows_of(run, shard, "samples", FACTS)}
        kept = (index for index, own in texts_of(run, shard) if any(row["keep"] for row in own))
        found.update(EXTENSIONS.get(facts[index], "jpg") for index in kept)
    return set(found)


def _as_jpeg(kept: Kept) -> Kept:
    if kept.extension == "jpg":
        return kept
    decoded = decode(kept.image, LIMITS)
    if isinstance(decoded, Refusal):
        raise ExportFault(
            f"the picture of {kept.key} was decoded when it was cleaned, and now it is not: "
            f"{decoded.reason}; `capfilt verify` tells what is wrong with the run"
        )
    return replace(kept, image=encode_jpeg(decoded.image), extension="jpg")


def _write_index(run: Run, opened: View, data: Path, config: ExportConfig) -> int:
    """Write a row for each text, dropped ones too, and one for each rejected sample."""
    count = rows = 0
    writer: pq.ParquetWriter | None = None
    path = data / "unused"
    for shard in opened.shards:
        table = pa.Table.from_pylist(list(_index_rows(run, shard)), _INDEX)
        if not len(table):
            continue
        if writer is None or path.stat().st_size >= config.file_bytes:
            if writer is not None:
                writer.close()
            path = data / f"train-{count:05d}.parquet"
            writer, count = pq.ParquetWriter(path, _INDEX), count + 1
        writer.write_table(table)
        rows += len(table)
    if writer is not None:
        writer.close()
    return rows


def _index_rows(run: Run, shard: SnapshotShard) -> Iterator[Row]:
    texts = dict(texts_of(run, shard))
    names = ("key", "url", "sha256", "width", "height")
    for facts in rows_of(run, shard, "samples", FACTS):
        base = {"shard": shard.shard} | {name: facts[name] for name in names}
        if facts["status"] != "ok":
            yield base | {"keep": False, "reason": facts["reason"]}
        for text in texts.get(facts["index"], []):
            yield base | {name: text[name] for name in _INDEXED}


def _identity(run: Run, opened: View, config: ExportConfig) -> dict[str, Any]:
    """Say what an export is of; two with the same hold the same."""
    listed = [
        [shard.shard, [file.sha256 for file in shard.files if file.table != "clean"]]
        for shard in opened.shards
    ]
    content = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return {
        "form": config.form,
        "fingerprint": run.fingerprint,
        "snapshot": opened.snapshot,
        "view": opened.name,
        "content": content,
        "config": config.model_dump(mode="json"),
    }


def _already(folder: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the record of this very export, if it is there; ExportFault for anything else."""
    if not folder.exists():
        return None
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        return None
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ExportFault(f"{folder} is there and holds no export; give a new folder") from None
    if any(found.get(key) != value for key, value in record.items()):
        raise ExportFault(f"{folder} holds another export; give a new folder, or remove it")
    return found


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


_INDEXED = ("text_no", "origin", "text", "itm", "itc", "keep", "reason")
_INDEX = pa.schema(
    [
        *PLAIN,
        ("text_no", pa.int16()),
        ("origin", pa.string()),
        ("text", pa.string()),
        ("itm", pa.float32()),
        ("itc", pa.float32()),
        ("keep", pa.bool_()),
        ("reason", pa.string()),
    ]
)
