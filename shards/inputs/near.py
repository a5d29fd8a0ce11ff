"""What stands beside a path that leads nowhere: the inputs that may have been meant."""

import os
from collections import Counter
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from shards.inputs.names import is_tar

_RUN = "run.json"
_KINDS_NAMED = 5


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
    counts = ", ".join(f"{number:,} {kind}" for kind, number in kinds)
    holds = f"; found in {folder.absolute()}: {counts or 'nothing'}"
    return holds + (f". Did you mean {' or '.join(near)}?" if near else "")


def _is_input(path: Path) -> bool:
    if path.is_dir():
        return not any((path / run).exists() for run in (_RUN, f"run/{_RUN}"))
    return is_tar(path.name)


def _kind(path: Path) -> str:
    if path.is_dir():
        return "folder"
    return PurePosixPath(path.name).suffix.lower() or "without an ending"
