"""One process at a time in a folder, by a lock that the kernel frees however its holder ends."""

import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from filelock import lock_descriptor

from shards.errors import CapfiltError

LOCK = "lock"
_log = logging.getLogger(__name__)


class FolderInUse(CapfiltError, RuntimeError):  # noqa: N818 - reads as what happened
    """A folder that another process works in."""

    exit_code = 2


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, with a warning where its file system has no locks.

    Raises FolderInUse where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # stays when all is over: between opening and locking it another process may hold it
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            free = lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:
            free = True
            _log.warning(
                "%s cannot be locked (%s): see to it that no other process works there",
                folder,
                error.strerror,
            )
        if not free:
            raise FolderInUse(_describe(folder, file))
        file.truncate(0)
        json.dump({"host": platform.node(), "pid": os.getpid()}, file)
        file.flush()
        yield


def _describe(folder: Path, file: TextIO) -> str:
    """Describe who holds a folder, as far as that is written down by now."""
    file.seek(0)
    try:
        holder = json.load(file)
        who = f"process {holder['pid']} on {holder['host']}"
    except (ValueError, TypeError, KeyError):
        who = "another process"
    return f"{folder} is in use by {who}; wait for its end, or end it, and run this command again"
