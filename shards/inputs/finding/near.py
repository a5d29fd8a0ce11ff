"""What stands beside a path that leads nowhere: the inputs or runs that may have been meant."""

import os
from collections import Counter
from difflib import get_close_matches
from itertools import islice
from pathlib import Path, PurePosixPath

from shards.inputs.names import is_tar

_RUN = "run.json"
_KINDS_NAMED = 5
_RUNS_LOOKED_AT, _RUNS_NAMED = 1_000, 5


def near_to(path: str) -> str:
    """Say what stands beside a local path that leads nowhere, or a pattern that matches nothing.

    Offered are the tars and folders of a similar name, but no runs, whose tars are results.
    """
    if "://" in path:
        return ""
    missing = Path(path.rstrip("/") or "/")
    while not missing.parent.exists():
        missing = missing.parent
    folder = missing.parent
    if not folder.is_dir() or not os.access(folder, os.R_OK):
        return ""
    there = [other for other in sorted(folder.iterdir()) if not other.name.startswith(".")]
    meant = {other.name: str(other) for other in there if _is_input(other)}
    near = [meant[name] for name in get_close_matches(missing.name, meant, n=3)]
    kinds = Counter(map(_kind, there)).most_common(_KINDS_NAMED)
    counts = ", ".join(f"{number:,} {_plural(kind, number)}" for kind, number in kinds)
    holds = f"; found in {folder.absolute()}: {counts or 'nothing'}"
    return holds + (f". Did you mean {' or '.join(near)}?" if near else "")


def runs_near(path: str) -> str:
    """Say of a local path that is no run which runs stand in it, or beside it with such a name."""
    local = Path(path)
    if "://" in path or local.is_file():
        return "; it is a file" if local.is_file() else ""
    folder = local if local.is_dir() else local.parent
    if not folder.is_dir() or not os.access(folder, os.R_OK):
        return "; there is no such folder"
    there = sorted(islice(folder.iterdir(), _RUNS_LOOKED_AT))
    runs = {other.name: str(other) for other in there if _is_there(other / _RUN)}
    if local.is_dir():
        inside = ", ".join(list(runs)[:_RUNS_NAMED])
        return f"; in it lie runs: {inside}" if runs else ""
    near = [runs[name] for name in get_close_matches(local.name, runs, n=3)]
    return "; there is no such folder" + (f". Did you mean {' or '.join(near)}?" if near else "")


def _is_input(path: Path) -> bool:
    if path.is_dir():
        return not any(_is_there(path / run) for run in (_RUN, f"run/{_RUN}"))
    return is_tar(path.name)


def _is_there(path: Path) -> bool:
    """Whether a file can be seen; in a folder that may not be read, none can."""
    return os.path.isfile(path)  # noqa: PTH113 - pathlib's raises there


def _kind(path: Path) -> str:
    if path.is_dir():
        return "folder"
    return PurePosixPath(path.name).suffix.lower() or "without an ending"


def _plural(kind: str, number: int) -> str:
    return f"{kind}s" if kind == "folder" and number > 1 else kind
