"""Export a clean set: as WebDataset or Parquet with the pictures in it, or as an index without.

What is exported is a snapshot, under a view: never whatever lies in the run's folders. A kill
leaves nothing that looks like an export, and the same command starts over (`destination`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.clean.export import EXTENSIONS, TextPolicy, choose_text, encode_jpeg
from pipeline.config import Config
from pipeline.explain.run_models import run_models
from pipeline.media.decode import DecodeRefusal, decode
from pipeline.media.pictures import LIMITS
from pipeline.publish.cards import dataset_card
from pipeline.publish.destination import ExportError, open_destination
from pipeline.publish.files import (
    AddFile,
    ParquetFiles,
    PictureTables,
    TarFiles,
)
from pipeline.publish.index import VERSION as INDEX_VERSION
from pipeline.publish.index import index_rows, index_schema
from pipeline.publish.kept import FACTS, KeptSample, kept_samples, kept_texts, rows_of
from shards.run.run import Run
from shards.run.scoring.score_set import with_scores
from shards.run.view import THRESHOLDS_ALONE, View, open_view
from shards.statistics import run_statistics

Form = Literal["webdataset", "parquet", "index"]


class ExportConfig(Config):
    """What an export looks like."""

    form: Form = "webdataset"
    file_bytes: int = Field(512 << 20, ge=1, description="of a file's pictures, about")
    text_policy: TextPolicy = "web_first"
    dropped: bool = Field(False, description="an index: list what is not kept, too, apart")


def export(
    run: Run, to: str | Path, config: ExportConfig, view: str | None = None
) -> dict[str, Any]:
    """Export what a view keeps (default: the run's own decisions) into a new folder or store.

    Returns the record, which `export.json` holds too; what holds this very export is left as it is.
    Raises ExportError, SourceError, ViewError, SnapshotError.
    """
    opened = open_view(run, view)
    if opened.snapshot is None:
        raise ExportError(
            f"{run.store.url()} is not finished: no snapshot lists it; run clean again with the "
            "same recipe"
        )
    if "." in (by := opened.basis.by):
        sets = [by.partition(".")[0]]
        opened = replace(opened, shards=with_scores(run, opened.shards, sets))
    record = _identity(run, opened, config)
    with open_destination(str(to)) as destination:
        if (existing := destination.existing_record()) is not None:
            if any(existing.get(key) != value for key, value in record.items()):
                raise ExportError(f"{to} holds another export; give a new folder, or remove it")
            return existing
        write = _write_index if config.form == "index" else _write_set
        record |= write(run, opened, destination.start(), config, destination.add)
        files = {"webdataset": "data/*.tar"}.get(config.form, "data/train-*.parquet")
        about = record | {"files": files if record["rows"] else None}
        destination.finish(record, _card(run, opened, about, run_statistics(run, opened)))
    return record


def card_of(run: Run, statistics: Mapping[str, Any], opened: View) -> str:
    """Write the card of a finished run's own clean set, which lies in its folder."""
    as_jpeg = run.identity.get("write", {}).get("images") == "jpeg"
    about = {
        "form": "run",
        "fingerprint": run.fingerprint,
        "snapshot": opened.snapshot,
        "view": None,
        "rows": statistics["kept"],
        "images": "encoded again as JPEG" if as_jpeg else "as they came in",
        "files": None,
    }
    return _card(run, opened, about, statistics)


def _card(run: Run, opened: View, about: Mapping[str, Any], statistics: Mapping[str, Any]) -> str:
    """Write a card that names the captioner and the filter of the run, with their digests."""
    models = run_models(run, "captioner") | run_models(run, "filter")
    named = {role: {"name": each.name, "digest": each.digest} for role, each in models.items()}
    shared = {"statistics": statistics, "models": named, "thresholds": opened.thresholds}
    return dataset_card({**about, **shared})


def _write_set(
    run: Run, opened: View, data: Path, config: ExportConfig, add_file: AddFile
) -> dict[str, Any]:
    """Write pictures and texts; return the count of rows, and what became of the pictures."""
    formats = _formats(run, opened)
    # `datasets` wants the same members in every sample of a WebDataset: one type of picture
    as_jpeg = config.form == "webdataset" and len(formats) > 1
    files = (
        TarFiles(data, config.file_bytes, add_file)
        if config.form == "webdataset"
        else PictureTables(data, config.file_bytes, add_file)
    )
    rows = 0
    for kept in kept_samples(run, opened, opened.name):
        seed = f"{run.identity.get('seed', 0)}/{kept.shard}/{kept.facts['key']}"
        text = choose_text(kept.texts, config.text_policy, seed)["text"]
        files.add(_as_jpeg(kept) if as_jpeg else kept, text)
        rows += 1
    files.close()
    again = f"encoded again as JPEG, for they were {', '.join(sorted(formats))}"
    return {"rows": rows, "images": again if as_jpeg else "as they came in"}


def _formats(run: Run, opened: View) -> set[str]:
    """List the types of the kept pictures, by the tables alone."""
    if run.identity.get("write", {}).get("images") == "jpeg":
        return {"jpg"}
    formats: set[str] = set()
    for shard in opened.shards:
        facts = {row["index"]: row["format"] for row in rows_of(run, shard, "samples", FACTS)}
        kept = (facts[index] for index, _ in kept_texts(run, shard))
        formats.update(EXTENSIONS.get(name, "jpg") for name in kept)
    return formats


def _as_jpeg(kept: KeptSample) -> KeptSample:
    if kept.extension == "jpg":
        return kept
    decoded = decode(kept.image, LIMITS)
    if isinstance(decoded, DecodeRefusal):
        raise ExportError(
            f"the picture of {kept.key} was decoded when it was cleaned, and now it is not: "
            f"{decoded.reason}; `capfilt verify` tells what is wrong with the run"
        )
    return replace(kept, image=encode_jpeg(decoded.image), extension="jpg")


def _write_index(
    run: Run, opened: View, data: Path, config: ExportConfig, add_file: AddFile
) -> dict[str, Any]:
    """Write a row for each picture; those that are dropped into files of their own, if wanted."""
    by = opened.basis.by
    tables = {
        keep: ParquetFiles(data, index_schema(by), config.file_bytes, add_file, name)
        for keep, name in {True: "train", False: "dropped"}.items()
        if keep or config.dropped
    }
    counts: Counter[bool] = Counter()
    without_url = 0
    for shard in opened.shards:
        rows = index_rows(run, shard, by, config.text_policy)
        for keep, table in tables.items():
            listed = [row for row in rows if row["keep"] == keep]
            table.write(listed)
            counts[keep] += len(listed)
            without_url += sum(keep and not row["url"] for row in listed)
    for table in tables.values():
        table.close()
    dropped = {"dropped": counts[False]} if config.dropped else {}
    return {
        "rows": counts[True],
        "images": "not included",
        "without_url": without_url,
        **dropped,
    }


def _identity(run: Run, opened: View, config: ExportConfig) -> dict[str, Any]:
    """Return what an export is of; two with the same hold the same."""
    listed = [
        [shard.shard, [file.sha256 for file in shard.files if file.table != "clean"]]
        for shard in opened.shards
    ]
    content = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    basis = opened.basis
    more = {"index_version": INDEX_VERSION} if config.form == "index" else {}
    judged_by = {} if basis == THRESHOLDS_ALONE else {"judged_by": basis.as_json()}
    return {
        "form": config.form,
        "fingerprint": run.fingerprint,
        "snapshot": opened.snapshot,
        "view": opened.name,
        "content": content,
        # as it was written before an index could list what is dropped
        "config": config.model_dump(mode="json", exclude=None if config.dropped else {"dropped"}),
        **more,
        **judged_by,
    }
