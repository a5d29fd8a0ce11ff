"""One folder of files, on local disk or behind any fsspec URL, with the two safe ways to write.

`publish` and `put` make a whole file appear under its name; `create` does so only if the name is
free, which is what makes a commit happen once. Readers never see half a file: what is being
written has a name that `list` leaves out.
"""

import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shards.errors import UsageError
from shards.files.claim import (
    checks_then_writes,
    claim_local,
    claim_remote,
    create_local,
    create_remote,
)
from shards.files.durable import TEMPORARY, make_folder, move_whole, put_whole
from shards.files.home import expand_home
from shards.files.regular import RegularFiles
from shards.files.scratch import scratch_folder

_READERS = 16
_NO_NAME = re.compile(r"/\.{0,2}/")  # a part that is empty, or leads elsewhere
_MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "created")  # as stores name it


class UnusableName(UsageError):  # noqa: N818 - reads as what happened
    """A path or URL that can name no file."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What lies under a name: its size, and when it was written, in seconds since 1970.

    `modified_s` and `etag` are None where the store does not say.
    """

    name: str
    size_bytes: int
    modified_s: float | None
    is_folder: bool = False
    etag: str | None = None

    @property
    def version(self) -> str | None:
        """What tells this content from another of the same size: the ETag, or else the time."""
        return self.etag or (None if self.modified_s is None else repr(self.modified_s))

    @property
    def temporary(self) -> str | None:
        """The topmost temporary file or folder this is or lies in, which `list` leaves out."""
        return _temporary(self.name)


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL or local path, and the (absolute) path in it.

    `~` and `~user` are home folders. Raises UnusableName for what can name no file anywhere.
    """
    local = url.removeprefix("file://")
    _check_name(local)
    if "://" not in local:  # not fsspec's own parsing: it takes "::" in a local name for a chain
        return RegularFiles(), os.path.abspath(expand_home(local))  # noqa: PTH100 - keeps links
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ValueError as error:
        raise UnusableName(f"{url!r}: {error}") from None
    if isinstance(fs, LocalFileSystem):
        return RegularFiles(), str(path)
    if not str(path).strip("/"):
        raise UnusableName(f"{url!r} names no bucket or folder")
    return fs, str(path)


def _check_name(url: str) -> None:
    try:
        is_name = url != "" and b"\0" not in os.fsencode(url)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise UnusableName(f"{url!r} is no path or URL: it is empty, or holds what no name can")


def url_of(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """Return the absolute URL of a path; plain for local files."""
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


class Store:
    """The files below one root, by relative names with forward slashes.

    `fs` is the fsspec file system, for tools that take one (DuckDB).
    """

    def __init__(self, url: str) -> None:
        self.fs, root = filesystem(url)
        self._root = root.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def url(self, name: str = "") -> str:
        """Return the absolute URL of a name (or of the root); a plain path for local stores."""
        return url_of(self.fs, self.path(name) if name else self._root)

    def path(self, name: str) -> str:
        """Return a name's path in `fs`; ValueError for a name that could leave the root."""
        if not is_plain_name(name):
            raise ValueError(f"{name!r} is not a plain name below {self._root}")
        return f"{self._root}/{name}"

    def read(self, name: str, size_bytes: int | None = None) -> bytes:
        """Read a whole file, or as much as its size should be; FileNotFoundError for none.

        s3fs asks for a size that it is not told.
        """
        start = None if size_bytes is None else 0
        return bytes(self.fs.cat_file(self.path(name), start=start, end=size_bytes))

    def read_many(self, names: list[str]) -> dict[str, bytes]:
        """Read whole files, several at once; names that are gone are left out."""
        with ThreadPoolExecutor(_READERS) as pool:
            contents = zip(names, pool.map(partial(_read_if_there, self), names), strict=True)
            return {name: data for name, data in contents if data is not None}

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return cast(BinaryIO, self.fs.open(self.path(name), "rb"))

    def sha256(self, name: str) -> str:
        """Hash a file's bytes as they are read back now, in hex."""
        with self.fs.open(self.path(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def exists(self, name: str) -> bool:
        """Check whether the file is there now."""
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self.path(name)))

    def size_bytes(self, name: str) -> int:
        """Return a file's size; FileNotFoundError if it is not there."""
        self.fs.invalidate_cache()
        return int(self.fs.size(self.path(name)))

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def list(self, folder: str = "") -> list[str]:
        """List the sorted names of all finished files below a folder."""
        top = self.path(folder) if folder else self._root
        self.fs.invalidate_cache()
        # s3fs names the folder itself, where the first file comes while it looks
        found = [path for path in self.fs.find(top) if self.is_local or path != top]
        names = [path[len(self._root) + 1 :] for path in found]
        return sorted(name for name in names if _temporary(name) is None)

    def survey(self, folder: str = "") -> tuple[StoredFile, ...]:
        """List all that lies below a folder, sorted by name: half-written files and folders too.

        Folders are given only where they are things of their own: on local disk.
        """
        self.fs.invalidate_cache()
        top = self.path(folder) if folder else self._root
        listed = self.fs.find(top, withdirs=self.is_local, detail=True)
        infos = {str(path)[len(self._root) + 1 :]: info for path, info in listed.items()}
        return tuple(_stored(name, infos[name]) for name in sorted(infos) if name)

    def remove_empty_folder(self, name: str) -> None:
        """Remove a folder of a local store; nothing happens if it is gone, or holds something."""
        with suppress(OSError):
            Path(self.path(name)).rmdir()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Lend a scratch folder for files that `publish` will take; it is emptied at the end.

        On a local store it lies inside the root, so that publishing is a rename, not a copy; else
        among the system's temporary files.
        """
        if not self.is_local:
            with scratch_folder("staging") as scratch:
                yield scratch
            return
        make_folder(Path(self._root))
        folder = tempfile.mkdtemp(prefix=TEMPORARY, dir=self._root)
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, staged: Path, name: str) -> None:
        """Make a finished local file appear whole under `name`; a staged file is moved away."""
        if self.is_local:
            move_whole(staged, Path(self.path(name)))
        else:
            self.fs.put_file(str(staged), self.path(name))

    def put(self, name: str, data: bytes) -> None:
        """Write a whole small file, replacing what was there in one step."""
        if self.is_local:
            put_whole(Path(self.path(name)), data)
        else:
            self.fs.pipe_file(self.path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a whole small file only if `name` is free; return whether this call wrote it.

        A store without such an option lets the last writer win; each read is still of one file.
        """
        if self.is_local:
            return create_local(Path(self.path(name)), data)
        return create_remote(self.fs, self.path(name), data)


def is_plain_name(name: str) -> bool:
    """Check that a name can lie nowhere but below a store's root."""
    return "\0" not in name and _NO_NAME.search(f"/{name}/") is None


def creates_once(store: Store) -> bool:
    """Check whether `create` lets one of several writers win, by two writes of one name."""
    if not store.is_local and checks_then_writes(store.fs):
        return False
    name = f"{TEMPORARY}probe-{secrets.token_hex(8)}"
    try:
        claims = [_claim(store, name, data) for data in (b"first", b"second")]
        return claims == [True, False] and store.read(name) == b"first"
    finally:
        with suppress(OSError):  # it has a temporary name: `capfilt gc` knows it
            store.delete(name)


def _claim(store: Store, name: str, data: bytes) -> bool | None:
    if store.is_local:
        return claim_local(Path(store.path(name)), data)
    return claim_remote(store.fs, store.path(name), data)


def _read_if_there(store: Store, name: str) -> bytes | None:
    try:
        return store.read(name)
    except FileNotFoundError:
        return None


def _temporary(name: str) -> str | None:
    """Cut a name behind its first part that is temporary; None where there is none."""
    parts = name.split("/")
    numbers = (number for number, part in enumerate(parts, 1) if part.startswith(TEMPORARY))
    return next(("/".join(parts[:number]) for number in numbers), None)


def _stored(name: str, info: Mapping[str, Any]) -> StoredFile:
    stamp = next((info[key] for key in _MODIFIED if info.get(key) is not None), None)
    folder = info["type"] == "directory"
    size_bytes = 0 if folder else int(info.get("size") or 0)
    etag = info.get("ETag") or info.get("etag")
    return StoredFile(name, size_bytes, seconds_of(stamp), folder, str(etag) if etag else None)


def seconds_of(stamp: object) -> float | None:
    """Return a time as file systems tell it in seconds since 1970; None for none."""
    if isinstance(stamp, datetime):
        return stamp.timestamp()
    return float(stamp) if isinstance(stamp, int | float) else None
