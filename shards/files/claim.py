"""Taking a free name in one step, so that one of several writers gets it.

On local disk by link(2) or renameat2(2), in a remote store by the store's own option. S3 has
answers of its own for a name that is taken and for one that another is about to take; they reach us
as an OSError with the client's error as its cause.
"""

import ctypes
import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import fsspec

from shards.files.durable import sync, temporary_file

_LINK_REFUSED = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
_REFUSED = {409, 412}  # HTTP: a conflict, a condition that does not hold
_CONFLICT_PAUSES_S = (0.1, 0.3, 1.0, 3.0)


def create_local(final: Path, data: bytes) -> bool:
    """Write a file unless its name is taken; return whether this call wrote it.

    Where neither call works the last writer wins; each read is still of one whole file.
    """
    with temporary_file(final, data) as temporary:
        created = _create_once(temporary, final)
        if created is None and not final.exists():
            temporary.rename(final)
            created = True
    sync(final.parent)
    return bool(created)


def claim_local(final: Path, data: bytes) -> bool | None:
    """Write a file only if its name is free, in one step; None where neither call works."""
    with temporary_file(final, data) as temporary:
        return _create_once(temporary, final)


def create_remote(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    """Write a file unless its name is taken; return whether this call wrote it.

    Where the store has no such option the last writer wins.
    """
    fs.invalidate_cache()
    if fs.exists(path):  # some stores take the option, and heed it not
        return False
    created = claim_remote(fs, path, data)
    if created is None:
        fs.pipe_file(path, data)
    return created is not False


def claim_remote(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool | None:
    """Write a file only if its name is free, by the store's own option; None if it has none.

    What stands under the name decides, not the answer: that of a write which came through may be
    lost, and the client's own second try is then refused. A conflict means that another's write is
    under way: it may yet fail, so ours is tried again.
    """
    for pause_s in (*_CONFLICT_PAUSES_S, None):
        try:
            fs.pipe_file(path, data, mode="create")
        except (NotImplementedError, TypeError):  # how stores say that they know no such mode
            return None
        except Exception as error:  # clients have kinds of their own; raised unless it is decided
            standing = _standing(fs, path)
            if standing == data:
                return True
            refused = isinstance(error, FileExistsError) or _http_status(error) in _REFUSED
            if refused and standing is not None:
                return False
            if not refused or pause_s is None:
                raise
            time.sleep(pause_s)
        else:
            return True
    raise AssertionError("unreachable")


def _standing(fs: fsspec.AbstractFileSystem, path: str) -> bytes | None:
    """Read what stands under a name now; None for nothing."""
    fs.invalidate_cache()
    try:
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        return None


def checks_then_writes(fs: fsspec.AbstractFileSystem) -> bool:
    """Check for a store that has only fsspec's own "create", which looks first and then writes."""
    return type(fs).pipe_file is fsspec.AbstractFileSystem.pipe_file and not hasattr(
        fs, "_pipe_file"
    )


def _http_status(error: BaseException) -> int | None:
    """Find the status of the answer that an S3 error stands for."""
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, Mapping):
        return None
    return cast(int | None, response.get("ResponseMetadata", {}).get("HTTPStatusCode"))


def _create_once(temporary: Path, final: Path) -> bool | None:
    """Take a free name in one step, by link(2) or renameat2(2); None where neither works."""
    try:
        os.link(temporary, final)  # not open("xb"): a kill would leave an empty "commit"
        return True
    except FileExistsError:
        return final.samefile(temporary)  # NFS repeats a link whose answer was lost
    except OSError as error:
        if error.errno not in _LINK_REFUSED:
            raise
    return _rename_if_free(temporary, final)


def _rename_if_free(temporary: Path, final: Path) -> bool | None:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return None
    old, new = os.fsencode(temporary), os.fsencode(final)
    if rename(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        return False
    if code not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(code, os.strerror(code), str(final))
    return None
