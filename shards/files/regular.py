"""Local files for reading: regular ones. What only looks like a file would be waited for, for ever.

A named pipe without a writer blocks whoever opens it; a device may have no end.
"""

import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from shards.errors import UsageError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegular(UsageError):  # noqa: N818 - reads as what happened
    """A pipe, socket or device in the place of a file."""


def irregular_kind(path: str | os.PathLike[str]) -> str | None:
    """Say what is there, if it is neither file nor folder."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))  # noqa: PTH116 - any kind of path
    except OSError:  # for whoever opens it to tell
        return None


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise NotRegular for what is there and is neither file nor folder."""
    if (kind := irregular_kind(path)) is not None:
        raise NotRegular(f"{os.fspath(path)} is {kind}, expected a file; move it, or name another")


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; NotRegular for what is none."""
    check_regular(path)
    return path.open("rb")


class RegularFiles(LocalFileSystem):
    """The local file system of fsspec, where only regular files can be read."""

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:  # noqa: ANN401 - fsspec's
        if "r" in mode:
            check_regular(path)
        return super()._open(path, mode, **options)
