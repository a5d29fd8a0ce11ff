"""The folder of an index: builds, of which one counts.

    INDEX/
      current              the name of the build that counts; replaced in one step, at the very end
      BUILD/               16 hex digits
        index.json         what was indexed, by which model, and the size and hash of each file
        …
      unfinished-BUILD/    until it is whole; what a killed process left, the next build removes,
                           by the mark that lies in it

A build that is killed leaves `current`, and what it names, as they were. The build before the
current one stays too, for processes that have it open.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards.errors import UsageError
from shards.files.durable import MARK, is_marked, remove_folder, remove_marked, sync, whole_folder
from shards.files.regular import check_regular

VERSION = 1
LOCK = "lock"  # who builds holds it
CURRENT, RECORD = "current", "index.json"
_UNFINISHED = "unfinished-"
_NAME_CHARACTERS = 16
_BUILD = re.compile(rf"[0-9a-f]{{{_NAME_CHARACTERS}}}")
# unfinished, and being removed
_HALF = re.compile(rf"{_UNFINISHED}{_BUILD.pattern}|\.{_BUILD.pattern}\.old\.partial")
_POINTER = re.compile(rf"{CURRENT}(\.{_BUILD.pattern})?")
_DAMAGED = re.compile(rf"{_BUILD.pattern}|{_HALF.pattern}|{_POINTER.pattern}")


class IndexFolderError(UsageError):
    """An index that cannot be built or read as it was asked for."""


def check_folder(folder: Path) -> None:
    """Raise IndexFolderError where a folder holds what no index wrote.

    What is ours is known by what it holds. In an index's own folder, what only has the name of a
    build or pointer may be a damaged one: it is not refused there, nor ever removed.
    """
    if folder.exists() and not folder.is_dir():
        raise IndexFolderError(f"{folder} is no folder; give a new one, or an index's own")
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    is_index = any(map(_is_build, entries)) or _points(folder)
    for path in entries:
        if not (_is_ours(path) or (is_index and _DAMAGED.fullmatch(path.name))):
            raise IndexFolderError(
                f"{folder} holds {path.name}, which belongs to no index; give a new folder, or an "
                "index's own"
            )


def _is_ours(path: Path) -> bool:
    if _BUILD.fullmatch(path.name):
        return _is_build(path)
    if _HALF.fullmatch(path.name):
        return is_marked(path)
    if path.name == LOCK:  # empty, or who holds it
        return _is_file(path) and (not path.stat().st_size or b'"pid"' in path.read_bytes())
    if not _POINTER.fullmatch(path.name) or not _is_file(path):
        return False
    if path.name == CURRENT:
        return _BUILD.fullmatch(_said(path)) is not None
    return _said(path) in path.name[len(CURRENT) + 1 :]  # a kill may have cut it


def _is_build(path: Path) -> bool:
    """Check for a finished build with nothing in it but what its record lists."""
    if path.is_symlink() or not _BUILD.fullmatch(path.name) or not _is_file(path / RECORD):
        return False
    try:
        record = json.loads((path / RECORD).read_bytes())
        files = set(record["files"]) if "version" in record else set()
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return bool(files) and {entry.name for entry in path.iterdir()} <= {*files, RECORD}


def _points(folder: Path) -> bool:
    """Check for a pointer to a folder that is there."""
    pointer = folder / CURRENT
    if not _is_file(pointer) or not _BUILD.fullmatch(name := _said(pointer)):
        return False
    return (folder / name).is_dir()


def _said(pointer: Path) -> str:
    with pointer.open("rb") as file:
        return file.read(_NAME_CHARACTERS + 2).decode("utf-8", "replace").strip()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


@contextmanager
def new_build(folder: Path) -> Iterator[Path]:
    """Lend a folder for a build's files, which is the one that counts once the block has ended.

    What killed builds left is removed first; if the block fails, so is this one. Raises
    IndexFolderError as `check_folder`.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _HALF.fullmatch(path.name):
            remove_marked(path)
        elif path.name != CURRENT and _POINTER.fullmatch(path.name) and _is_ours(path):
            path.unlink()
    name = secrets.token_hex(8)
    with whole_folder(folder / name, folder / f"{_UNFINISHED}{name}") as build:
        yield build
    _make_current(folder, name)


def write_record(build: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write the record of a build, of which all other files are written; return it."""
    written = (path for path in sorted(build.iterdir()) if path.name != MARK)
    files = {path.name: _facts(path) for path in written}
    record = {"version": VERSION, **record, "files": files}
    (build / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
    return record


def _make_current(folder: Path, name: str) -> None:
    """Point to a build in one step, and remove all others but the one before it."""
    before = current(folder) if _points(folder) else None
    pointer = folder / f"{CURRENT}.{name}"
    pointer.write_text(name)
    sync(pointer)
    pointer.replace(folder / CURRENT)
    sync(folder)
    for old in folder.iterdir():
        if _is_build(old) and old.name not in (name, before):
            remove_folder(old)


def current(folder: Path) -> str | None:
    """Name the build that counts; None if there is none."""
    try:
        check_regular(folder / CURRENT)
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
    check_regular(path)
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
