"""Divides a list of addresses into parts, once, and writes down which list that was.

A row's part follows from its address, so that all rows of one address are in one part, where it is
fetched once; and the hosts of a list, which often stand together, are spread.
"""

import hashlib
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.download.address import BadAddress, mend
from pipeline.download.columns import Columns, ListError, choose_columns
from pipeline.download.url_list import ListFile, Row, as_json, as_text, find_lists
from shards.download.record import (
    RECORD,
    Download,
    NotADownload,
    Part,
    create,
    list_name,
    open_same,
    publish,
)
from shards.download.tables import LISTED, TableWriter
from shards.inputs.finding.find import info_of
from shards.reasons import DownloadReason
from shards.store import Store, seconds_of

PART_ROWS = 10_000
_WRITTEN_AT_ONCE = 256  # parts: as many files are open
_MOST_COLUMNS_BYTES = 32 << 10  # of other columns, kept beside a picture

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ListRequest:
    """What the user says of a list; None is guessed, or as the download was begun with."""

    source: str
    url_column: str | None = None
    text_column: str | None = None
    part_rows: int | None = None


def prepare_download(
    store: Store, request: ListRequest, say: Callable[[str], None] = _log.info
) -> Download:
    """Open the download of a list, or begin it; `say` hears what was guessed of the list.

    Raises ListError, NotADownload, RunMismatch.
    """
    files = find_lists(request.source)
    for file in files:
        for note in file.notes:
            say(f"{file.url}: {note}")
    columns = _columns(files, request)
    say(f"{request.source}: {columns.said}")
    if store.exists(RECORD):
        return open_same(store, _identity_again(Download.open(store), files, columns, request))
    if strange := [name for name in store.list() if not name.startswith("record/")]:
        raise NotADownload(
            f"{store.url()} is not empty and holds no download (no {RECORD}; found "
            f"{strange[0]}); give an empty or new folder"
        )
    return _begin(store, files, columns, request.part_rows or PART_ROWS)


def _columns(files: Sequence[ListFile], request: ListRequest) -> Columns:
    """Choose the columns by the first file that has rows; the others must have them, too."""
    full = next((file for file in files if file.sample()), files[0])
    chosen = choose_columns(
        full.names(), full.sample(), full.url, request.url_column, request.text_column
    )
    for file in files:
        names = file.names()
        if names and chosen.url not in names:
            raise ListError(
                f"{file.url}: missing_column: {chosen.url!r} is not there, as in {full.url}; the "
                f"columns are {', '.join(map(repr, names))}"
            )
    return chosen


def _begin(store: Store, files: Sequence[ListFile], columns: Columns, part_rows: int) -> Download:
    described = [_described(file) for file in files]
    sha256 = [_sha256(file) for file in files]
    rows = sum(1 for _ in _all_rows(files))
    count = max(1, -(-rows // part_rows))
    names = [f"{number:05d}" for number in range(count)]
    parts = []
    for first in range(0, count, _WRITTEN_AT_ONCE):  # the list is read anew for each of these
        parts += _write_parts(store, files, columns, names, range(count)[first:][:_WRITTEN_AT_ONCE])
    identity = {
        "list_sha256": sha256,
        "rows": rows,
        "columns": asdict(columns),
        "part_rows": part_rows,
    }
    return create(store, identity, {"files": described}, parts)


def _identity_again(
    download: Download, files: Sequence[ListFile], columns: Columns, request: ListRequest
) -> dict[str, Any]:
    """Say what list is given now; files that look as they did are not hashed again."""
    recorded = dict(download.identity)
    described = [_described(file) for file in files]
    same = described == download.about.get("files")
    return {
        "list_sha256": recorded.get("list_sha256") if same else [_sha256(f) for f in files],
        "rows": recorded.get("rows"),
        "columns": asdict(columns),
        "part_rows": request.part_rows or recorded.get("part_rows"),
    }


def _described(file: ListFile) -> dict[str, Any]:
    info = info_of(file.fs, file.path)
    modified = info.get("mtime") or info.get("LastModified") or info.get("created")
    etag, mtime = info.get("ETag") or info.get("etag"), seconds_of(modified)
    return {"url": file.url, "size_bytes": info["size"], "etag": etag, "mtime": mtime}


def _sha256(file: ListFile) -> str:
    with file.fs.open(file.path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _all_rows(files: Sequence[ListFile]) -> Iterator[Row]:
    return chain.from_iterable(file.rows() for file in files)


def _write_parts(
    store: Store,
    files: Sequence[ListFile],
    columns: Columns,
    names: Sequence[str],
    chosen: range,
) -> list[Part]:
    """Write some of the parts; a table that a kill has left is written over."""
    counts = dict.fromkeys(chosen, 0)
    with store.staging() as folder:
        paths = {number: folder / names[number] for number in chosen}
        writers = {n: TableWriter(path, LISTED) for n, path in paths.items()}
        for row in _listed(files, columns):
            number = _part_of(row, len(names))
            if number in writers:
                writers[number].add(row)
                counts[number] += 1
        for writer in writers.values():
            writer.close()
        return [_published(store, paths[n], names[n], counts[n]) for n in chosen]


def _published(store: Store, path: Path, name: str, rows: int) -> Part:
    record = publish(store, path, "list", list_name(name), rows)
    return Part(shard=name, rows=rows, sha256=record.sha256)


def _part_of(row: Mapping[str, Any], count: int) -> int:
    if row["address"] is None:
        return int(row["row"]) % count
    return zlib.crc32(row["address"].encode()) % count


def _listed(files: Sequence[ListFile], columns: Columns) -> Iterator[dict[str, Any]]:
    known = {columns.url, columns.text, columns.sha256, columns.md5}
    for number, row in enumerate(_all_rows(files)):
        url = as_text(row.get(columns.url))
        others = as_json({name: value for name, value in row.items() if name not in known})
        if others is not None and len(others) > _MOST_COLUMNS_BYTES:
            others = None
        listed = {
            "row": number,
            "url": url,
            "address": None,
            "reason": None,
            "detail": None,
            "text": as_text(row.get(columns.text)) if columns.text else None,
            "sha256": _hash(row.get(columns.sha256)) if columns.sha256 else None,
            "md5": _hash(row.get(columns.md5)) if columns.md5 else None,
            "columns": others,
        }
        yield listed | _addressed(url)


def _addressed(url: str | None) -> dict[str, str]:
    if url is None or not url.strip():
        return {"reason": DownloadReason.NULL_VALUE.value}
    try:
        return {"address": mend(url)}
    except BadAddress as error:
        return {"reason": DownloadReason.BAD_URL.value, "detail": str(error)}


def _hash(value: object) -> str | None:
    text = as_text(value)
    return text.strip().lower() or None if text else None
