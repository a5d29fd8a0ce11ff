"""Folders of checkpoints as people name them: one of the hub's cache, a file in it, a slip."""

import json
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from models.bounded_file import SETTINGS_BYTES, read_bounded

CONFIG = "config.json"
FAMILY = "blip"
_SNAPSHOTS, _CACHED = "snapshots", "models--*"
_NAMED_AT_MOST = 5
_LONGEST_FAMILY = 40


def path_of(name: str | Path) -> Path:
    """Return the path that a name is, its home folder put in."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 - pathlib's fails for unknown users


def checkpoint_in(folder: Path, revision: str | None = None) -> Path:
    """Return a folder, or the snapshot that a folder of the hub's cache has; else ValueError.

    The cache keeps each commit of `OWNER/NAME` in `models--OWNER--NAME/snapshots`.
    """
    top = folder.parent if folder.name == _SNAPSHOTS else folder
    if (folder / CONFIG).exists() or not (top / _SNAPSHOTS).is_dir():
        _refuse_cache(folder)
        return folder
    name = revision or "main"
    named = top / "refs" / name
    commit = named.read_text(encoding="utf-8").strip() if named.is_file() else name
    found = sorted(path for path in (top / _SNAPSHOTS).iterdir() if path.is_dir())
    if top / _SNAPSHOTS / commit in found:
        return top / _SNAPSHOTS / commit
    if len(found) == 1 and revision is None:
        return found[0]
    there = f"there are {_some(found)}" if found else "there is none: the download was not finished"
    raise ValueError(
        f"{top} is a folder of the Hugging Face hub's cache without a snapshot of {name!r}; "
        f"{there}. Give one of its snapshots, or fetch it: hf download OWNER/NAME"
    )


def check_family(folder: Path) -> None:
    """Raise ValueError for a folder without settings, or with those of another family of models."""
    try:
        block = json.loads(read_bounded(folder / CONFIG, SETTINGS_BYTES))
    except FileNotFoundError:
        raise ValueError(
            f"{folder} has no {CONFIG}. Give a Hugging Face BLIP folder or hub id."
            + inner_checkpoints(folder)
        ) from None
    except (OSError, ValueError, RecursionError):
        return  # who reads all of it says what is wrong
    family = block.get("model_type") if isinstance(block, dict) else None
    if isinstance(family, str) and family != FAMILY:
        raise ValueError(
            f"{folder} holds a model of another family: here only BLIP is supported, found "
            f"{family[:_LONGEST_FAMILY]}. Give one of BLIP's checkpoints, as docs/checkpoints.md "
            "lists them; in a cleaning, say caption.kind: transformers or score.kind: dual_encoder"
        )


def near_to(name: str | Path, known: Iterable[str]) -> str:
    """Say which names are like one that leads nowhere: beside a local path, or known ones."""
    path = path_of(name)
    while not path.parent.exists():
        path = path.parent
    parent = path.parent
    beside = os.listdir(parent) if parent.is_dir() else []  # noqa: PTH208 - names alone
    places = {other: str(parent / other) for other in beside} | {other: other for other in known}
    near = [places[other] for other in get_close_matches(path.name, places, n=3)]
    return f" Did you mean {' or '.join(near)}?" if near else ""


def inner_checkpoints(folder: Path) -> str:
    """Say which folders in one that is no checkpoint are, as in that of a training."""
    inside = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    return f" Did you mean {_some(inside)}?" if inside else ""


def _refuse_cache(folder: Path) -> None:
    for cache in (folder, folder / "hub"):
        cached = sorted(cache.glob(_CACHED)) if not (folder / CONFIG).exists() else []
        if cached:
            raise ValueError(
                f"{folder} is a cache of the Hugging Face hub, and holds {_some(cached)}; give one "
                "of them, or the model's name, OWNER/NAME"
            )


def _some(paths: list[Path]) -> str:
    more = f" and {len(paths) - _NAMED_AT_MOST} more" if len(paths) > _NAMED_AT_MOST else ""
    return ", ".join(map(str, paths[:_NAMED_AT_MOST])) + more
