"""The folder of an index: builds, of which one counts.

    INDEX/
      current              the name of the build that counts; replaced in one step, at the very end
      BUILD/               16 hex digits
        index.json         what was indexed, by which model, and the size and hash of each file
        …
      unfinished-BUILD/    until it is whole; what a killed process left, the next build removes

A build that is killed leaves `current`, and what it names, as they were. The build before the
current one stays too, for processes that have it open.
"""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards.durable import sync, whole_folder
from shards.errors import UsageError

VERSION = 1
LOCK = "lock"  # who builds holds it
CURRENT, RECORD = "current", "index.json"
_UNFINISHED = "unfinished-"
_BUILD = re.compile(r"[0-9a-f]{16}")
_OURS = re.compile(rf"{LOCK}|{CURRENT}(\.{_BUILD.pattern})?|({_UNFINISHED})?{_BUILD.pattern}")


class IndexFolderError(UsageError):
    """An index that cannot be built or read as it was asked for."""


def check_folder(folder: Path) -> None:
    """Raise IndexFolderError where a folder holds what no index wrote: a build removes old ones."""
    if folder.exists() and not folder.is_dir():
        raise IndexFolderError(f"{folder} is no folder; give a new one, or an index's own")
    for path in folder.iterdir() if folder.is_dir() else ():
        if not _OURS.fullmatch(path.name):
            raise IndexFolderError(
                f"{folder} holds {path.name}, which belongs to no index; give a new folder, or an "
                "index's own"
            )


@contextmanager
def new_build(folder: Path) -> Iterator[Path]:
    """Lend a folder for a build's files, which is the one that counts once the block has ended.

    What killed builds left is removed first; if the block fails, so is this one. Raises
    IndexFolderError as `check_folder`.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name.startswith(_UNFINISHED):
            shutil.rmtree(path)
        elif path.name.startswith(f"{CURRENT}."):
            path.unlink()
    name = secrets.token_hex(8)
    with whole_folder(folder / name, folder / f"{_UNFINISHED}{name}") as build:
        yield build
    _make_current(folder, name)


def write_record(build: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write the record of a build, of which all other files are written; return it."""
    files = {path.name: _facts(path) for path in sorted(build.iterdir())}
    record = {"version": VERSION, **record, "files": files}
    (build / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
    return record


def _make_current(folder: Path, name: str) -> None:
    """Point to a build in one step, and remove all others but the one before it."""
    before = current(folder)
    pointer = folder / f"{CURRENT}.{name}"
    pointer.write_text(name)
    sync(pointer)
    pointer.replace(folder / CURRENT)
    sync(folder)
    for old in folder.iterdir():
        if _BUILD.fullmatch(old.name) and old.name not in (name, before):
            shutil.rmtree(old)


def current(folder: Path) -> str | None:
    """Name the build that counts; None if there is none."""
    try:
        name = (folder / CURRENT).read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not _BUILD.fullmatch(name):
        raise IndexFolderError(f"{folder / CURRENT} names no build; build the index again")
    return name


def open_current(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the record of the build that counts; IndexFolderError without one."""
    name = current(folder)
    if name is None:
        raise IndexFolderError(f"{folder} holds no index; make one with `capfilt index`")
    path = folder / name / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(record["version"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise IndexFolderError(f"{path} cannot be read ({error}); build the index again") from None
    if version > VERSION:
        raise IndexFolderError(
            f"{path} is of version {version}, this capfilt reads up to {VERSION}"
        )
    return path.parent, record


def file_of(build: Path, record: dict[str, Any], name: str) -> Path:
    """Return the path of a build's file; IndexFolderError unless it has the size that was written.

    One that was cut off must not be mapped into memory: reading behind its end kills the process.
    """
    path = build / name
    size_bytes = path.stat().st_size if path.is_file() else None
    try:
        expected = int(record["files"][name]["size_bytes"])
    except (ValueError, TypeError, KeyError):
        raise IndexFolderError(f"{build / RECORD} lacks {name}; build the index again") from None
    if size_bytes != expected:
        what = "it is gone" if size_bytes is None else f"{size_bytes:,} found"
        raise IndexFolderError(
            f"{path}: {expected:,} bytes expected, {what}; build the index again"
        )
    return path


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size_bytes": path.stat().st_size, "sha256": digest}
