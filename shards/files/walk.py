"""What lies below a folder: files and folders, without what systems leave beside them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shards.files.notice import tell_once

# of macOS a twin, `._a.jpg`, of each file in an archive; of Synology small copies of pictures
_LEFT_BY_SYSTEMS = ("__MACOSX", "@eaDir")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder; `info` is what a store said of it, None where it is still to be asked."""

    path: str
    is_folder: bool
    info: Mapping[str, Any] | None = None


def walk(fs: fsspec.AbstractFileSystem, top: str, depth: int | None = None) -> Iterator[Entry]:
    """Yield what lies below a folder, at most `depth` levels down.

    What is hidden is left out, with all that lies in it. A folder that cannot be read is told of,
    but for `top`, which raises OSError.
    """
    if isinstance(fs, LocalFileSystem):
        yield from _walk_disk(top, depth)
        return
    listed = fs.find(top, maxdepth=depth, withdirs=True, detail=True)
    for path, info in listed.items():
        name = below(top, path).strip("/")
        if name and not any(map(is_hidden, name.split("/"))):
            yield Entry(path, info["type"] == "directory", info)


def walk_files(fs: fsspec.AbstractFileSystem, top: str) -> Iterator[str]:
    """Yield the paths of the files below a folder; nothing where there is no folder."""
    try:
        yield from (entry.path for entry in walk(fs, top) if not entry.is_folder)
    except (FileNotFoundError, NotADirectoryError):
        return


def is_hidden(name: str) -> bool:
    """Tell what a system keeps for itself, by the name of a file or folder alone."""
    return name.startswith(".") or name in _LEFT_BY_SYSTEMS


def below(top: str, path: str) -> str:
    """Return the name of a path relative to a folder above it."""
    return path[len(top.rstrip("/")) + 1 :]


def _walk_disk(top: str, depth: int | None) -> Iterator[Entry]:
    """Walk linked folders, too: behind all others, and no folder twice, for links may go round."""

    def tell(error: OSError) -> None:
        if error.filename == top:
            raise error
        tell_once(f"{error.filename} cannot be read, and is left out: {error.strerror}")

    seen: set[tuple[int, int]] = set()
    waiting = [top]
    for start in waiting:  # grows on the way
        for here, folders, files in os.walk(start, onerror=tell):
            visible = sorted(name for name in folders if not is_hidden(name))
            folders.clear()  # what is walked is put back
            if _is_in(seen, here):
                continue
            folder = here.rstrip("/")
            paths = [f"{folder}/{name}" for name in visible]
            yield from (Entry(path, True) for path in paths)
            yield from (
                Entry(f"{folder}/{name}", False) for name in sorted(files) if not is_hidden(name)
            )
            if depth is None or below(top, f"{folder}/").count("/") + 1 < depth:
                links = {path for path in paths if os.path.islink(path)}  # noqa: PTH114 - as walked
                waiting += sorted(links)
                folders += [name for name in visible if f"{folder}/{name}" not in links]


def _is_in(seen: set[tuple[int, int]], folder: str) -> bool:
    """Whether a folder was seen by whatever name; it is from now on."""
    status = os.stat(folder)  # noqa: PTH116 - a path as os.walk has it
    identity = status.st_dev, status.st_ino
    known = identity in seen
    seen.add(identity)
    return known
