"""One folder of files, on local disk or behind any fsspec URL, with the two safe ways to write.

`publish` and `put` make a whole file appear under its name; `create` does so only if the name is
free, which is what makes a commit happen once. Readers never see half a file: what is being
written has a name that `list` leaves out.
"""

import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shards.claim import create_once, take_name

_TEMPORARY = ".tmp-"
_READERS = 16
_HTTP_CONFLICT, _HTTP_PRECONDITION_FAILED = 409, 412
_CONFLICT_PAUSES_S = (0.1, 0.3, 1.0, 3.0)
_MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "created")  # as stores name it


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What lies under a name: its size, and when it was written, in seconds since 1970.

    `modified_s` is None where the store does not say.
    """

    name: str
    size_bytes: int
    modified_s: float | None
    is_folder: bool = False

    @property
    def temporary(self) -> str | None:
        """The topmost temporary file or folder this is or lies in, which `list` leaves out."""
        parts = self.name.split("/")
        for count, part in enumerate(parts, start=1):
            if part.startswith(_TEMPORARY):
                return "/".join(parts[:count])
        return None


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Give the file system of a URL or local path, and the (absolute) path in it."""
    if "://" not in url:  # not fsspec's own parsing: it takes "::" in a local name for a chain
        return LocalFileSystem(), os.path.abspath(url)  # noqa: PTH100 - keeps links as written
    fs, path = fsspec.core.url_to_fs(url)
    return fs, str(path)


def url_of(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """Give the absolute URL of a path; plain for local files."""
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


class Store:
    """The files below one root, by relative names with forward slashes."""

    def __init__(self, url: str) -> None:
        self._fs, root = filesystem(url)
        self._root = root.rstrip("/")
        self.is_local = isinstance(self._fs, LocalFileSystem)

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The fsspec file system, for tools that take one (DuckDB)."""
        return self._fs

    def url(self, name: str = "") -> str:
        """Give the absolute URL of a name (or of the root); a plain path for local stores."""
        return url_of(self._fs, self.path(name) if name else self._root)

    def path(self, name: str) -> str:
        """Give a name's path in `fs`; ValueError for a name that could leave the root."""
        parts = name.split("/")
        if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{name!r} is not a plain name below {self._root}")
        return f"{self._root}/{name}"

    def read(self, name: str) -> bytes:
        """Read a whole file; FileNotFoundError if it is not there."""
        return bytes(self._fs.cat_file(self.path(name)))

    def read_many(self, names: list[str]) -> dict[str, bytes]:
        """Read whole files, several at once; names that are gone are left out."""
        with ThreadPoolExecutor(_READERS) as pool:
            found = zip(names, pool.map(self._read_if_there, names), strict=True)
            return {name: data for name, data in found if data is not None}

    def _read_if_there(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return cast(BinaryIO, self._fs.open(self.path(name), "rb"))

    def sha256(self, name: str) -> str:
        """Hash a file's bytes as they are read back now, in hex."""
        with self._fs.open(self.path(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def exists(self, name: str) -> bool:
        """Say whether the file is there now."""
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self.path(name)))

    def size_bytes(self, name: str) -> int:
        """Give a file's size; FileNotFoundError if it is not there."""
        self._fs.invalidate_cache()
        return int(self._fs.size(self.path(name)))

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self.path(name))

    def list(self, folder: str = "") -> list[str]:
        """Give the sorted names of all finished files below a folder."""
        top = self.path(folder) if folder else self._root
        self._fs.invalidate_cache()
        names = [path[len(self._root) + 1 :] for path in self._fs.find(top)]
        return sorted(name for name in names if not _is_temporary(name))

    def survey(self) -> tuple[StoredFile, ...]:
        """Give all that lies below the root, sorted by name: half-written files and folders too.

        Folders are given only where they are things of their own: on local disk.
        """
        self._fs.invalidate_cache()
        found = self._fs.find(self._root, withdirs=self.is_local, detail=True)
        infos = {str(path)[len(self._root) + 1 :]: info for path, info in found.items()}
        return tuple(_stored(name, infos[name]) for name in sorted(infos) if name)

    def remove_empty_folder(self, name: str) -> None:
        """Remove a folder of a local store; nothing happens if it is gone, or holds something."""
        with suppress(OSError):
            Path(self.path(name)).rmdir()

    @contextmanager
    def staging(self, scratch: Path | None = None) -> Iterator[Path]:
        """Lend a scratch folder for files that `publish` will take; it is emptied at the end.

        On a local store it lies inside the root, so that publishing is a rename, not a copy.
        """
        parent = Path(self._root) if self.is_local else scratch
        if self.is_local:
            _make_folder(Path(self._root))
        folder = tempfile.mkdtemp(prefix=_TEMPORARY, dir=parent)
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, staged: Path, name: str) -> None:
        """Make a finished local file appear whole under `name`; a staged file is moved away."""
        if not self.is_local:
            self._fs.put_file(str(staged), self.path(name))
            return
        final = self._local(name)
        sync(staged)
        staged.rename(final)
        sync(final.parent)

    def put(self, name: str, data: bytes) -> None:
        """Write a whole small file, replacing what was there in one step."""
        if not self.is_local:
            self._fs.pipe_file(self.path(name), data)
            return
        final = self._local(name)
        with _temporary(final, data) as temporary:
            temporary.rename(final)
        sync(final.parent)

    def create(self, name: str, data: bytes) -> bool:
        """Write a whole small file only if `name` is free; say whether this call wrote it.

        A store without such an option lets the last writer win; each read is still of one file.
        """
        if not self.is_local:
            return self._create_remote(self.path(name), data)
        final = self._local(name)
        with _temporary(final, data) as temporary:
            created = take_name(temporary, final)
        sync(final.parent)
        return created

    def creates_once(self) -> bool:
        """Find out whether `create` lets one of several writers win, by two writes of one name."""
        name = f"{_TEMPORARY}probe-{secrets.token_hex(8)}"
        try:
            return self._claims_once(name)
        finally:
            with suppress(OSError):  # it has a temporary name: `capfilt gc` knows it
                self.delete(name)

    def _claims_once(self, name: str) -> bool:
        if self.is_local:
            final = self._local(name)
            with _temporary(final, b"first") as first, _temporary(final, b"second") as second:
                claims = create_once(first, final), create_once(second, final)
        else:
            if _checks_then_writes(self._fs):
                return False
            path = self.path(name)
            claims = self._claim_remote(path, b"first"), self._claim_remote(path, b"second")
        return claims == (True, False) and self.read(name) == b"first"

    def _create_remote(self, path: str, data: bytes) -> bool:
        self._fs.invalidate_cache()
        if self._fs.exists(path):  # some stores take the option below, and heed it not
            return False
        created = self._claim_remote(path, data)
        if created is None:
            self._fs.pipe_file(path, data)
        return created is not False

    def _claim_remote(self, path: str, data: bytes) -> bool | None:
        """Write a file only if its name is free, by the store's own option; None if it has none.

        A conflict means that another's write is under way: it may yet fail, so ours is tried again.
        """
        for pause_s in (*_CONFLICT_PAUSES_S, None):
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except (NotImplementedError, TypeError):  # how stores say that they know no such mode
                return None
            except OSError as error:
                status = _http_status(error)
                if status == _HTTP_PRECONDITION_FAILED:
                    return False
                if status != _HTTP_CONFLICT or pause_s is None:
                    raise
                time.sleep(pause_s)
            else:
                return True
        raise AssertionError("unreachable")

    def _local(self, name: str) -> Path:
        final = Path(self.path(name))
        _make_folder(final.parent)
        return final


def _is_temporary(name: str) -> bool:
    return any(part.startswith(_TEMPORARY) for part in PurePosixPath(name).parts)


@contextmanager
def _temporary(final: Path, data: bytes) -> Iterator[Path]:
    """Write data, safe on disk, beside `final`; what is left of it at the end is removed."""
    path = final.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def _checks_then_writes(fs: fsspec.AbstractFileSystem) -> bool:
    """Say whether a store only has fsspec's own "create", which looks first and then writes."""
    return type(fs).pipe_file is fsspec.AbstractFileSystem.pipe_file and not hasattr(
        fs, "_pipe_file"
    )


def _http_status(error: BaseException) -> int | None:
    """Find the status of the answer that an S3 error stands for."""
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, Mapping):
        return None
    return cast(int | None, response.get("ResponseMetadata", {}).get("HTTPStatusCode"))


def _stored(name: str, info: Mapping[str, Any]) -> StoredFile:
    stamp = next((info[key] for key in _MODIFIED if info.get(key) is not None), None)
    if isinstance(stamp, datetime):
        stamp = stamp.timestamp()
    modified_s = float(stamp) if isinstance(stamp, int | float) else None
    folder = info["type"] == "directory"
    return StoredFile(name, 0 if folder else int(info.get("size") or 0), modified_s, folder)


def _make_folder(folder: Path) -> None:
    """Make a folder whose own entry outlives a power cut, like the files in it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Wait until a local file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
