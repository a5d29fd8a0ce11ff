"""Home folders in paths that people write: a shell puts them in, but not behind `--output=`."""

import os

from shards.errors import UsageError


def expand_home(path: str) -> str:
    """Put a home folder in the place of a leading `~` or `~user`, as shells do.

    Raises UsageError for a user that is not known here, unless a file has that name.
    """
    expanded = os.path.expanduser(path)  # noqa: PTH111 - pathlib's raises a RuntimeError
    named = path.partition("/")[0]
    if expanded == path and named.startswith("~") and not os.path.lexists(named):
        raise UsageError(f"{path!r}: there is no user of that name here; a folder is ./{named}")
    return expanded
