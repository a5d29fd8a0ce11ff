"""The folder of a download: the list that it is of, and a commit for each part that is done.

    OUT/00000.tar, 00001.tar, 00000-1.tar …    what came, and what a retry of a part brought
    OUT/record/download.json                    created once: which list, which columns, which parts
    OUT/record/list/PART.parquet                the rows of a part, as the list has them
    OUT/record/rows/PART-ATTEMPT.parquet        what became of each of them
    OUT/record/commits/PART.json, PART-1.json   created only if absent: that part counts as done

A part's pictures lie in `record/rows/` too, under a name that no reader of tars takes for one,
until its commit is there. Only then do they become `PART.tar`; who is killed in between leaves that
to the next command. So a tar that is seen belongs to a commit, and there is one of each name.
"""

import hashlib
import logging
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shards.download.tables import LISTED, ROWS, read_rows
from shards.errors import CapfiltError, DamagedFile, UsageError
from shards.files.durable import TEMPORARY
from shards.run.commit import FileRecord
from shards.run.record import as_model, read_record, record_version, write_record
from shards.run.run import check_identity, fingerprint
from shards.store import Store

VERSION = 1
RECORD = "record/download.json"
_FROZEN = ConfigDict(frozen=True, extra="forbid")
_log = logging.getLogger(__name__)


class NotADownload(UsageError):  # noqa: N818 - reads as what happened
    """A folder that holds something, but no download that this code can read."""


class WriteCheckError(CapfiltError, OSError):
    """A file that does not read back as it was written."""


class Part(BaseModel):
    """A part of the list; `shard` is the name of its tar."""

    model_config = _FROZEN
    shard: str
    rows: int
    sha256: str  # of its table


class DownloadCounts(BaseModel):
    """What became of rows: `rows = ok + failed`, always."""

    model_config = _FROZEN
    rows: int = Field(default=0, ge=0)
    ok: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    failed_by_reason: dict[str, int] = {}
    size_bytes: int = Field(default=0, ge=0)  # of the pictures that came

    def model_post_init(self, _context: Any) -> None:  # noqa: ANN401 - pydantic's
        """Refuse counts that lose a row."""
        by_reason = sum(self.failed_by_reason.values())
        if self.rows != self.ok + self.failed or self.failed != by_reason:
            raise ValueError(f"rows are lost: {self}")

    def __add__(self, other: "DownloadCounts") -> "DownloadCounts":
        """Add up two parts' counts."""
        reasons = Counter(self.failed_by_reason) + Counter(other.failed_by_reason)
        return DownloadCounts(
            rows=self.rows + other.rows,
            ok=self.ok + other.ok,
            failed=self.failed + other.failed,
            failed_by_reason=dict(sorted(reasons.items())),
            size_bytes=self.size_bytes + other.size_bytes,
        )


class PartCommit(BaseModel):
    """All that an attempt on a part came to; `retry` counts those before it that count, too.

    `pictures` is the tar of this attempt, if any picture came; `tars` names it and the earlier
    ones, in OUT.
    """

    model_config = _FROZEN
    version: int = VERSION
    part: str
    retry: int
    attempt: str
    fingerprint: str
    rows: FileRecord
    pictures: FileRecord | None
    tars: tuple[str, ...]
    counts: DownloadCounts
    worth_a_retry: int
    environment: dict[str, Any]
    started: str
    ended: str

    @property
    def name(self) -> str:
        """Name the attempt among those on its part that count."""
        return numbered(self.part, self.retry)


@dataclass(frozen=True, slots=True)
class Download:
    """An open download; `identity` is what decides its parts, `about` what was merely so."""

    store: Store
    identity: Mapping[str, Any]
    about: Mapping[str, Any]
    fingerprint: str
    parts: tuple[Part, ...]

    @classmethod
    def open(cls, store: Store) -> "Download":
        """Open what a folder holds; raises NotADownload, DamagedFile."""
        where = store.url(RECORD)
        try:
            record = read_record(store.read(RECORD), where)
        except FileNotFoundError:
            raise NotADownload(f"{store.url()} holds no download (no {RECORD})") from None
        version = record_version(record, "version", where)
        if version > VERSION:
            raise NotADownload(
                f"{where} has version {version}, newer than {VERSION}, the newest this capfilt "
                "reads; update capfilt"
            )
        parts = tuple(as_model(Part, part, where) for part in record.get("parts", ()))
        identity, about = record.get("identity"), record.get("about")
        if not isinstance(identity, dict) or not isinstance(about, dict):
            raise DamagedFile(where, "identity and about", record.keys())
        return cls(store, identity, about, str(record.get("fingerprint")), parts)

    def listed(self, part: str) -> list[dict[str, Any]]:
        """Read the rows of a part as the list has them."""
        name = list_name(part)
        with self.store.open(name) as file:
            return read_rows(file, LISTED, self.store.url(name))

    def rows(self, commit: PartCommit) -> list[dict[str, Any]]:
        """Read what became of the rows of a part."""
        with self.store.open(commit.rows.name) as file:
            return read_rows(file, ROWS, self.store.url(commit.rows.name))


def create(
    store: Store, identity: Mapping[str, Any], about: Mapping[str, Any], parts: Iterable[Part]
) -> Download:
    """Begin a download whose parts are written already; another's, begun meanwhile, stands."""
    record = {
        "version": VERSION,
        "fingerprint": fingerprint(identity),
        "identity": dict(identity),
        "about": {**about, "created": now()},
        "parts": [part.model_dump() for part in parts],
    }
    store.create(RECORD, write_record(record))
    return open_same(store, identity)


def open_same(store: Store, identity: Mapping[str, Any]) -> Download:
    """Open a download that must be of this list; raises RunMismatch, which says what differs."""
    download = Download.open(store)
    recorded = {"fingerprint": download.fingerprint, "identity": download.identity}
    record = {"fingerprint": fingerprint(identity), "identity": identity}
    check_identity(store.url(), "a download", recorded, record)
    return download


def newest_commits(download: Download) -> dict[str, PartCommit]:
    """Return the last commit of each part that is done."""
    newest: dict[str, PartCommit] = {}
    names = download.store.list("record/commits")
    for name, data in download.store.read_many(names).items():
        commit = as_model(PartCommit, read_record(data, name), download.store.url(name))
        if commit.part not in newest or newest[commit.part].retry < commit.retry:
            newest[commit.part] = commit
    return newest


def commit_part(download: Download, commit: PartCommit) -> bool:
    """Make an attempt count, unless another does already; a loser's own files are removed."""
    store = download.store
    won = store.create(commit_name(commit.name), write_record(commit.model_dump(mode="json")))
    if won:
        reveal(download, commit)
        return True
    for file in (commit.rows, commit.pictures):
        if file is not None:
            store.delete(file.name)
    return False


def reveal(download: Download, commit: PartCommit) -> None:
    """Give the pictures of a commit the name of a tar, if they do not have it yet."""
    if commit.pictures is None or not download.store.exists(commit.pictures.name):
        return
    tar = download.store.path(tar_name(commit.name))
    download.store.fs.mv(download.store.path(commit.pictures.name), tar)


def publish(store: Store, staged: Path, table: str, name: str, rows: int) -> FileRecord:
    """Publish a staged file under a name, read it back, and give its record."""
    size_bytes = staged.stat().st_size
    with staged.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    store.publish(staged, name)
    if (stored := store.sha256(name)) != sha256:
        raise WriteCheckError(
            f"{store.url(name)} does not read back as written: expected sha256 {sha256}, found "
            f"{stored}"
        )
    return FileRecord(table=table, name=name, size_bytes=size_bytes, sha256=sha256, rows=rows)


def sweep(download: Download) -> None:
    """Finish what a kill has left half done: tars get their names, orphans go.

    Only for who knows that nobody else works on this download.
    """
    kept = set[str]()
    commits = download.store.list("record/commits")
    for name, data in download.store.read_many(commits).items():
        commit = as_model(PartCommit, read_record(data, name), name)
        reveal(download, commit)
        kept.add(commit.rows.name)
    for name in download.store.list("record/rows"):
        if name not in kept:
            _log.info("%s is of no commit, and is removed", name)
            download.store.delete(name)
    for file in download.store.survey():
        if file.temporary is not None and not file.is_folder:
            download.store.delete(file.name)
    for file in reversed(download.store.survey()):
        if file.is_folder and file.name.startswith(TEMPORARY):
            download.store.remove_empty_folder(file.name)


def list_name(part: str) -> str:
    """Name the table of a part of the list."""
    return f"record/list/{part}.parquet"


def commit_name(numbered_part: str) -> str:
    """Name the commit of an attempt that counts."""
    return f"record/commits/{numbered_part}.json"


def tar_name(numbered_part: str) -> str:
    """Name the tar of an attempt that counts."""
    return f"{numbered_part}.tar"


def numbered(part: str, retry: int) -> str:
    """Name the first attempt on a part that counts like the part, the others by their number."""
    return f"{part}-{retry}" if retry else part


def new_attempt() -> str:
    """Return the random id of an attempt."""
    return secrets.token_hex(8)


def now() -> str:
    """Return this moment, for records."""
    return datetime.now(UTC).isoformat()
