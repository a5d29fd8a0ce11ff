"""Scratch folders among the system's temporary files; what was killed left, the next start removes.

Each holds a file that its owner has locked for as long as it lives, children that it forked
included: the kernel frees the lock however they end. A folder goes only if it is known to be ours
by such a file, and nobody holds that: never by its age, and no folder of another user.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "capfilt-"
_LOCK, _CONTENT = "owner", "content"
_held: dict[Path, int] = {}  # by which process: a fork has a copy of this


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Lend an empty folder that is removed at the end, and first remove what killed ones left.

    `purpose` stands in its name.
    """
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-"))
    _held[folder], lock = os.getpid(), _lock(folder)
    (folder / _CONTENT).mkdir()
    try:
        yield folder / _CONTENT
    finally:
        _remove(folder)
        os.close(lock)


def remove_held() -> None:
    """Remove all scratch folders of this process, which is about to end without more ado."""
    for folder in list(_held):
        _remove(folder)


def _remove(folder: Path) -> None:
    if _held.pop(folder, None) == os.getpid():  # not in a fork
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the scratch folders of this user that nobody holds any more."""
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and _is_own_folder(entry):
                _remove_if_abandoned(Path(entry.path))


def _lock(folder: Path) -> int:
    """Make the file that says that a folder is in use; it has its name once it is locked."""
    made = folder / f"{_LOCK}.new"
    descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with suppress(OSError):  # a file system without locks: then the folder is never abandoned
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made.rename(folder / _LOCK)
    return descriptor


def _is_own_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def _remove_if_abandoned(folder: Path) -> None:
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        facts = os.fstat(descriptor)
        is_lock = stat.S_ISREG(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_size
        # a user's own folder may begin with the same letters, and hold a file of that name
        if is_lock and {path.name for path in folder.iterdir()} <= {_LOCK, _CONTENT}:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # somebody holds it
        return
    finally:
        os.close(descriptor)
