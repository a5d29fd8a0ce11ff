"""Files that strangers wrote: opened only if they are plain files, read only up to a limit.

A pipe never ends, /dev/zero never either, and a file of settings may be as large as a disk.
"""

import codecs
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

SETTINGS_BYTES = 4 << 20  # a config.json has some KB, an index of weights some hundreds
VOCABULARY_BYTES = 16 << 20  # BERT's tokenizer.json has 0.7 MB, one of 500,000 words 14 MB

_START_BYTES = 512
_LFS_POINTER = b"version https://git-lfs.github.com/"
_PAGES = (b"<!doctype", b"<html", b"<?xml")


@contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file to read bytes; ValueError for anything else, OSError as `open` has it."""
    # not to wait for a pipe's other end; a plain file heeds it not
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder; expected a file", str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path} is no plain file, but a pipe, a socket or a device")
        _check_start(path, file.read(_START_BYTES))
        file.seek(0)
        yield file


def _check_start(path: Path, start: bytes) -> None:
    """Raise ValueError for what downloads leave in the place of a file."""
    if start.startswith(_LFS_POINTER):
        raise ValueError(
            f"{path} is a pointer of Git LFS, not the file that it points to; run `git lfs pull` "
            "in its folder"
        )
    if start.removeprefix(codecs.BOM_UTF8).lstrip().lower().startswith(_PAGES):
        raise ValueError(f"{path} is a web page, such as an error; download the file again")


def fault_of(path: Path, what: str, error: Exception) -> str:
    """Say what is wrong with a file, or one in a folder; errors of this module name it already."""
    message = str(error)
    return message if message.startswith(str(path)) else f"{path} {what}: {message}"


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Read a plain file of at most so many bytes; ValueError if it has more."""
    with open_plain(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"{path} has more than {most_bytes >> 20} MiB; expected far fewer")
    return data
