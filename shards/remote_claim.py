"""Taking a free name in a remote store, by the store's own option, so that one of several gets it.

S3 has answers of its own for a name that is taken and for one that another is about to take; they
reach us as an OSError with the client's error as its cause.
"""

import time
from collections.abc import Mapping
from typing import cast

import fsspec

_HTTP_CONFLICT, _HTTP_PRECONDITION_FAILED = 409, 412
_CONFLICT_PAUSES_S = (0.1, 0.3, 1.0, 3.0)


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

    A conflict means that another's write is under way: it may yet fail, so ours is tried again.
    """
    for pause_s in (*_CONFLICT_PAUSES_S, None):
        try:
            fs.pipe_file(path, data, mode="create")
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
