"""Finding input tars: what a path or a pattern names, and what is left out of it, said once."""

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import fsspec
from braceexpand import braceexpand
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from shards.errors import UsageError
from shards.files.notice import tell_once
from shards.files.regular import check_regular
from shards.files.walk import Entry, below, walk
from shards.inputs.names import FOREIGN_EXTENSIONS, IMAGE_EXTENSIONS, is_tar
from shards.inputs.near import near_to
from shards.store import filesystem

_GLOB, _WILD = "*?[", "{*?["
_OTHERWISE_COMPRESSED = re.compile(
    r"\.(tar\.(bz2|xz|zst|zstd|lz4|lzma|z|br)|tbz2?|txz|tzst|zip|7z|rar)$", re.IGNORECASE
)
_PACK = "pack the pictures with their texts: tar --sort=name -cf NAME.tar -C FOLDER ."
_TABLE = "is a table; clean reads WebDataset tars (KEY.jpg + KEY.txt), as img2dataset makes of it"
_TEXT = (
    "is a text file; clean reads WebDataset tars (KEY.jpg + KEY.txt). Of a list of tars, give each "
    "with --input, or all under input.urls of a recipe; of a list of addresses, img2dataset makes "
    "tars"
)
_ARCHIVE = f"is an archive of another kind; clean reads WebDataset tars. Unpack it, and {_PACK}"
_PICTURE = f"is a picture; clean reads WebDataset tars (KEY.jpg + KEY.txt): {_PACK}"
_UNPACK = "only *.tar, *.tgz and *.tar.gz are read: unpack the others first"
_OTHER_KINDS = {
    **dict.fromkeys((".parquet", ".csv", ".tsv", ".json", ".jsonl"), _TABLE),
    ".txt": _TEXT,
    **dict.fromkeys((".arrow", ".feather", ".xlsx", ".csv.gz", ".tsv.gz", ".jsonl.gz"), _TABLE),
    **dict.fromkeys((".zip", ".7z", ".rar"), _ARCHIVE),
    **{f".{ending}": _PICTURE for ending in (*IMAGE_EXTENSIONS, *FOREIGN_EXTENSIONS)},
}
_OTHER_STARTS = {b"PK\x03\x04": _ARCHIVE, b"PAR1": _TABLE}  # of files whose names do not tell
_RUN, _RECIPE = "run.json", "recipe.yaml"  # the first marks a run, whose tars are results
_NAMED_AT_MOST = 5
_MOST_EXPANDED = 1_000_000  # of a brace pattern


class InputError(UsageError):
    """An input that names no WebDataset tars, or the same shard twice."""


@dataclass(frozen=True, slots=True)
class FoundTars:
    """The tars that an input names, as their store describes them, and where it starts.

    `start` is the folder below which they are named: the folder itself, the last whole one before
    a pattern's first wildcard, or a single file's parent.
    """

    fs: fsspec.AbstractFileSystem
    start: str
    infos: list[dict[str, Any]]


@dataclass(slots=True)
class _Look:
    """What is found below a folder, or matches a pattern."""

    tars: list[Entry] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    marked: dict[str, set[str]] = field(default_factory=lambda: {_RUN: set(), _RECIPE: set()})
    compressed: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)  # by their endings


def open_place(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of an input and the path in it; InputError if there can be none."""
    try:
        return filesystem(url)
    except (ValueError, ImportError) as error:
        message = str(error)
        raise InputError(message if repr(url) in message else f"{url!r}: {message}") from error


def find_tars(pattern: str) -> FoundTars:
    """Find the tars that a file, folder, glob or brace pattern names; InputError if there are none.

    What is there under the very name is meant, whatever signs it has.
    """
    if pattern.startswith("pipe:"):
        raise InputError(f"{pattern!r}: pipe: inputs run commands and are refused; name files")
    fs, path = open_place(pattern)
    folder, rest = _split(fs, path)
    if not rest and _is_folder(fs, path):
        _refuse_run(fs, path, pattern)
        look = _look(fs, path, pattern)
        infos = _tars_of(fs, path, look)
        if not infos:
            raise _nothing(pattern, path, look)
        return FoundTars(fs, path, infos)
    _check_kind(pattern, pattern)
    if not rest:
        parent = str(PurePosixPath(path).parent)
        return FoundTars(fs, parent, [_single(fs, path, pattern)])
    infos = []
    for one in _expanded(rest, pattern):
        infos += _alternative(fs, f"{folder.rstrip('/')}/{one}", pattern)
    return FoundTars(fs, folder, infos)


def info_of(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    """Describe a file as its store does; on a disk, what a link leads to. Raises OSError."""
    if not isinstance(fs, LocalFileSystem):
        return dict(fs.info(path))
    found = os.stat(path)  # noqa: PTH116 - a path as it was found
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file"}
    kind = kinds.get(stat.S_IFMT(found.st_mode), "other")
    return {"name": path, "size": found.st_size, "type": kind, "mtime": found.st_mtime}


def _split(fs: fsspec.AbstractFileSystem, path: str) -> tuple[str, str]:
    """Split a path into what is there by that very name, or has no sign of a pattern, and the rest.

    The rest is empty where all of it is meant as it stands.
    """
    parts = path.split("/")
    for number, part in enumerate(parts):
        literal = "/".join(parts[: number + 1])
        if any(sign in part for sign in _WILD) and not _exists(fs, literal):
            return "/".join(parts[:number]) or path[: path.startswith("/")], "/".join(
                parts[number:]
            )
    return path, ""


def _exists(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    return os.path.lexists(path) if isinstance(fs, LocalFileSystem) else bool(fs.exists(path))


def _is_folder(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    if is_tar(path) and not isinstance(fs, LocalFileSystem):
        try:  # some stores would read a file to see whether it is a folder
            return bool(fs.info(path)["type"] == "directory")
        except FileNotFoundError:
            return False
    return bool(fs.isdir(path))


def _expanded(rest: str, pattern: str) -> Iterable[str]:
    try:
        names = list(islice(braceexpand(rest, escape=False), _MOST_EXPANDED + 1))
    except ValueError as error:
        raise InputError(f"{pattern!r}: unbalanced braces") from error
    if len(names) > _MOST_EXPANDED:
        raise InputError(
            f"{pattern!r} stands for more than {_MOST_EXPANDED:,} names; use * instead"
        )
    return names


def _alternative(fs: fsspec.AbstractFileSystem, path: str, pattern: str) -> list[dict[str, Any]]:
    """Find what one alternative of a brace pattern names: a file that must be there, or a glob."""
    folder, rest = _split(fs, path)
    if not any(sign in rest for sign in _GLOB):
        return [_single(fs, path, pattern)]
    recursive = "**" in rest
    matches = re.compile(glob_translate(rest)).match
    depth = None if recursive else rest.count("/") + 1
    look = _look(fs, folder, pattern, depth, lambda name: matches(name) is not None)
    infos = _tars_of(fs, folder, look) if recursive else _infos(fs, look.tars, look)
    if recursive:
        look.folders.clear()  # what lies in them matches for itself
    for found in [name for name in look.folders if is_tar(name)]:
        look.folders.remove(found)
        inside = _look(fs, found, pattern)
        infos += _tars_of(fs, found, inside)
        _tell_barren([] if inside.tars else [found])
    if not (infos or look.others or look.folders or look.tars):
        near = near_to(pattern)
        raise InputError(
            f"{pattern!r} matches no *.tar, *.tgz or *.tar.gz{near or f' (looked in {folder})'}"
        )
    if not infos:
        raise _nothing(pattern, folder, look)
    if look.folders:
        named = _some(sorted(look.folders))
        tell_once(
            f"{pattern}: folders match, too, and are not walked: {named}; name them as inputs"
        )
    return infos


def _look(
    fs: fsspec.AbstractFileSystem,
    top: str,
    pattern: str,
    depth: int | None = None,
    matches: Callable[[str], bool] = bool,
) -> _Look:
    look = _Look()
    try:
        for entry in walk(fs, top, depth):
            name = below(top, entry.path).rstrip("/")
            folder, _, last = entry.path.rpartition("/")
            if "/" in name and last in look.marked:
                look.marked[last].add(folder)
            if matches(name):
                _put(look, entry, name)
    except FileNotFoundError:
        pass  # nothing is found there
    except OSError as error:
        raise InputError(f"{pattern!r}: {top} cannot be read: {error.strerror or error}") from error
    return look


def _runs(look: _Look) -> set[str]:
    """Return the folders of runs; `capfilt try` has its run in one beside the sample's tars."""
    runs, recipes = look.marked[_RUN], look.marked[_RECIPE]
    return runs | ({run.removesuffix("/run") for run in runs} & recipes)


def _put(look: _Look, entry: Entry, name: str) -> None:
    if entry.is_folder:
        look.folders.append(entry.path.rstrip("/"))
    elif is_tar(name):
        look.tars.append(entry)
    else:
        if _OTHERWISE_COMPRESSED.search(name):
            look.compressed.append(entry.path)
        look.others[PurePosixPath(name).suffix.lower() or "without an ending"] += 1


def _tars_of(fs: fsspec.AbstractFileSystem, top: str, look: _Look) -> list[dict[str, Any]]:
    """Describe the tars of a walk, but for those of runs below it."""
    tars, runs, known = [], set[str](), _runs(look)
    for entry in look.tars:
        above = _run_above(entry.path, known)
        if above is None:
            tars.append(entry)
        else:
            runs.add(above)
    if runs:
        tell_once(
            f"{top}: the tars of runs are left out (a {_RUN} marks them): {_some(sorted(runs))}"
        )
    full = {parent for entry in look.tars for parent in _parents(entry.path)}
    folders = [name for name in look.folders if is_tar(name)]
    _tell_barren(sorted(name for name in folders if name not in full))
    return _infos(fs, tars, look)


def _tell_barren(folders: list[str]) -> None:
    if folders:
        tell_once(f"{_some(folders)}: named like a tar, but a folder without tars, and left out")


def _infos(
    fs: fsspec.AbstractFileSystem, tars: Iterable[Entry], look: _Look
) -> list[dict[str, Any]]:
    infos = [_checked(fs, entry.path, entry.info) for entry in tars]
    if infos and look.compressed:
        tell_once(
            f"left out, as they are packed otherwise: {_some(sorted(look.compressed))}; {_UNPACK}"
        )
    return infos


def _run_above(path: str, runs: set[str]) -> str | None:
    return next((parent for parent in _parents(path) if parent in runs), None) if runs else None


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(path).parents]


def _single(fs: fsspec.AbstractFileSystem, path: str, pattern: str) -> dict[str, Any]:
    """Describe a file that is named by itself, whatever its ending."""
    try:
        info = _checked(fs, path, None)
    except FileNotFoundError as error:
        raise InputError(f"{pattern!r}: there is no {path}{near_to(pattern)}") from error
    if info["type"] == "directory":
        raise InputError(f"{pattern!r}: {path} is a folder; end the pattern with *.tar")
    _check_kind(path, pattern)
    if not is_tar(path):
        with fs.open(path, "rb") as file:
            start = file.read(4)
        if start in _OTHER_STARTS:
            raise InputError(f"{pattern!r} {_OTHER_STARTS[start]}")
    return info


def _checked(
    fs: fsspec.AbstractFileSystem, path: str, info: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Describe a file; InputError for a link that leads nowhere, NotRegular for a pipe."""
    try:
        known = info_of(fs, path) if info is None else dict(info)
    except FileNotFoundError:
        is_link = isinstance(fs, LocalFileSystem) and os.path.islink(path)  # noqa: PTH114 - as found
        if not is_link:
            raise
        target = os.readlink(path)  # noqa: PTH115 - as it is written
        raise InputError(
            f"{path} is a link to {target}, and nothing is there; mend the link, or remove it"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if known["type"] == "other":
        check_regular(path)
    return known


def _check_kind(path: str, pattern: str) -> None:
    for ending, message in _OTHER_KINDS.items():
        if path.lower().endswith(ending):
            raise InputError(f"{pattern!r} {message}")


def _refuse_run(fs: fsspec.AbstractFileSystem, path: str, pattern: str) -> None:
    if all(fs.exists(f"{path.rstrip('/')}/{name}") for name in (_RUN, _RECIPE)):
        raise InputError(
            f"{pattern!r} is the folder of a run, whose input lies elsewhere. Name what it was "
            "cleaned from; or, for its clean tars, the addresses in its clean.txt"
        )


def _nothing(pattern: str, where: str, look: _Look) -> InputError:
    if not (look.others or look.folders or look.tars):
        return InputError(f"{pattern!r}: {where} is an empty folder (hidden files do not count)")
    found = [f"{count:,} {ending}" for ending, count in look.others.most_common(_NAMED_AT_MOST)]
    if look.folders:
        found.insert(0, f"folders ({_some(sorted(look.folders))})")
    message = f"{pattern!r}: no *.tar, *.tgz or *.tar.gz found there (looked in {where})"
    message += f"; there are {', '.join(found)}" if found else ""
    if look.compressed:
        return InputError(f"{message}; {_UNPACK}")
    pictures = any(ending[1:] in IMAGE_EXTENSIONS for ending in look.others)
    return InputError(f"{message}. To clean pictures, {_PACK}" if pictures else message)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return f"{', '.join(names[:_NAMED_AT_MOST])}{more}"
