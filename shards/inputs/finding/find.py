"""Finding inputs: what a path or a pattern names, and what is left out of it, said once."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import fsspec
from braceexpand import braceexpand
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from shards.files.notice import tell_once
from shards.files.regular import check_regular
from shards.files.walk import Entry
from shards.inputs.finding.kinds import kind_in
from shards.inputs.finding.look import RUN, Look, look_below, parents, some
from shards.inputs.finding.near import near_to
from shards.inputs.names import FOREIGN_EXTENSIONS, IMAGE_EXTENSIONS, is_tar
from shards.inputs.shard import InputError, Kind
from shards.store import filesystem

_GLOB, _WILD = "*?[", "{*?["
_TABLE = (
    "is a table that clean does not read; Parquet with image bytes it does. Of addresses, `capfilt "
    "download` makes tars; of a table of texts beside pictures, give the folder"
)
_TEXT = (
    "is a text file; clean reads tars, folders of pictures and Parquet. Of a list of tars, give "
    "each with --input, or all under input.urls of a recipe; of addresses, `capfilt download` "
    "makes tars"
)
_ARCHIVE = "is an archive of another kind; clean reads tars. Unpack it, and give the folder"
_PICTURE = "is a picture; give the folder that it lies in"
_UNPACK = "only *.tar, *.tgz and *.tar.gz are read: unpack the others first"
_OTHER_KINDS = {
    **dict.fromkeys((".csv", ".tsv", ".json", ".jsonl"), _TABLE),
    ".txt": _TEXT,
    **dict.fromkeys((".arrow", ".feather", ".xlsx", ".csv.gz", ".tsv.gz", ".jsonl.gz"), _TABLE),
    **dict.fromkeys((".zip", ".7z", ".rar"), _ARCHIVE),
    **{f".{ending}": _PICTURE for ending in (*IMAGE_EXTENSIONS, *FOREIGN_EXTENSIONS)},
}
_ZIP, _PARQUET = b"PK\x03\x04", b"PAR1"  # starts of files whose names do not tell
_RECIPE = "recipe.yaml"
_NAMED_AT_MOST = 5
_MOST_EXPANDED = 1_000_000  # of a brace pattern


@dataclass(frozen=True, slots=True)
class Found:
    """What an input names: files as their store describes them, or all pictures below a folder.

    `start` is the folder below which they are named: the folder itself, the last whole one before
    a pattern's first wildcard, or a single file's parent.
    """

    fs: fsspec.AbstractFileSystem
    start: str
    infos: list[dict[str, Any]]
    kind: Kind = "tar"
    look: Look = field(default_factory=Look)


def open_place(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of an input and the path in it; InputError if there can be none."""
    try:
        return filesystem(url)
    except (ValueError, ImportError) as error:
        message = str(error)
        raise InputError(message if repr(url) in message else f"{url!r}: {message}") from error


def find_inputs(pattern: str, kind: Kind | None = None) -> Found:
    """Find what a file, folder, glob or brace pattern names; InputError if there is nothing.

    What is there under the very name is meant, whatever signs it has. `kind` says which of several
    kinds of input is meant.
    """
    if pattern.startswith("pipe:"):
        raise InputError(f"{pattern!r}: pipe: inputs run commands and are refused; name files")
    fs, path = open_place(pattern)
    folder, rest = _split(fs, path)
    if not rest and _is_folder(fs, path):
        _refuse_run(fs, path, pattern)
        return _in_folder(fs, path, pattern, kind)
    _check_kind(pattern, pattern)
    if not rest:
        parent, info = str(PurePosixPath(path).parent), _single(fs, path, pattern)
        return Found(fs, parent, [info], _kind_of_file(fs, path, pattern))
    infos, kinds = [], set[Kind]()
    for one in _expanded(rest, pattern):
        some_infos, its_kind = _alternative(fs, f"{folder.rstrip('/')}/{one}", pattern, kind)
        infos += some_infos
        kinds.add(its_kind)
    if len(kinds) > 1:
        raise InputError(f"{pattern!r} names tars and Parquet files; give each kind by itself")
    return Found(fs, folder, infos, kinds.pop())


def _in_folder(fs: fsspec.AbstractFileSystem, path: str, pattern: str, kind: Kind | None) -> Found:
    look = look_below(fs, path, pattern)
    chosen = kind_in(fs, look, pattern, kind)
    if chosen == "folder":
        return Found(fs, path, [], chosen, look)
    if chosen == "parquet":
        return Found(fs, path, _infos(fs, _outside(look, look.tables, path), look), chosen)
    infos = _tars_of(fs, path, look)
    if not infos:
        raise _nothing(pattern, path, look)
    return Found(fs, path, infos)


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


def _alternative(
    fs: fsspec.AbstractFileSystem, path: str, pattern: str, kind: Kind | None
) -> tuple[list[dict[str, Any]], Kind]:
    """Find what one alternative of a brace pattern names: a file that must be there, or a glob."""
    folder, rest = _split(fs, path)
    if not any(sign in rest for sign in _GLOB):
        return [_single(fs, path, pattern)], _kind_of_file(fs, path, pattern)
    recursive = "**" in rest
    matches = re.compile(glob_translate(rest)).match
    depth = None if recursive else rest.count("/") + 1
    look = look_below(fs, folder, pattern, depth, lambda name: matches(name) is not None)
    chosen = kind_in(fs, look, pattern, kind)
    if chosen == "parquet":
        return _infos(fs, _outside(look, look.tables, folder), look), chosen
    if chosen == "folder":
        raise InputError(f"{pattern!r} names pictures one by one; give the folder they lie in")
    infos = _tars_of(fs, folder, look) if recursive else _infos(fs, look.tars, look)
    if recursive:
        look.folders.clear()  # what lies in them matches for itself
    for found in [name for name in look.folders if is_tar(name)]:
        look.folders.remove(found)
        inside = look_below(fs, found, pattern)
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
        named = some(sorted(look.folders))
        tell_once(
            f"{pattern}: folders match, too, and are not walked: {named}; name them as inputs"
        )
    return infos, "tar"


def _tars_of(fs: fsspec.AbstractFileSystem, top: str, look: Look) -> list[dict[str, Any]]:
    """Describe the tars of a walk, but for those of runs below it."""
    tars = _outside(look, look.tars, top)
    full = {parent for entry in look.tars for parent in parents(entry.path)}
    folders = [name for name in look.folders if is_tar(name)]
    _tell_barren(sorted(name for name in folders if name not in full))
    return _infos(fs, tars, look)


def _outside(look: Look, entries: list[Entry], top: str) -> list[Entry]:
    left, runs = look.outside_runs(entries)
    if runs:
        tell_once(f"{top}: the files of runs are left out (a {RUN} marks them): {some(runs)}")
    return left


def _tell_barren(folders: list[str]) -> None:
    if folders:
        tell_once(f"{some(folders)}: named like a tar, but a folder without tars, and left out")


def _infos(
    fs: fsspec.AbstractFileSystem, tars: Iterable[Entry], look: Look
) -> list[dict[str, Any]]:
    infos = [_checked(fs, entry.path, entry.info) for entry in tars]
    if infos and look.compressed:
        tell_once(
            f"left out, as they are packed otherwise: {some(sorted(look.compressed))}; {_UNPACK}"
        )
    return infos


def _single(fs: fsspec.AbstractFileSystem, path: str, pattern: str) -> dict[str, Any]:
    """Describe a file that is named by itself, whatever its ending."""
    try:
        info = _checked(fs, path, None)
    except FileNotFoundError as error:
        raise InputError(f"{pattern!r}: there is no {path}{near_to(pattern)}") from error
    if info["type"] == "directory":
        raise InputError(f"{pattern!r}: {path} is a folder; end the pattern with *.tar")
    _check_kind(path, pattern)
    return info


def _kind_of_file(fs: fsspec.AbstractFileSystem, path: str, pattern: str) -> Kind:
    if is_tar(path):
        return "tar"
    with fs.open(path, "rb") as file:
        start = file.read(4)
    if start == _ZIP:
        raise InputError(f"{pattern!r} {_ARCHIVE}")
    return "parquet" if start == _PARQUET or path.lower().endswith(".parquet") else "tar"


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
    if all(fs.exists(f"{path.rstrip('/')}/{name}") for name in (RUN, _RECIPE)):
        raise InputError(
            f"{pattern!r} is the folder of a run, whose input lies elsewhere. Name what it was "
            "cleaned from; or, for its clean tars, the addresses in its clean.txt"
        )


def _nothing(pattern: str, where: str, look: Look) -> InputError:
    if not (look.others or look.folders or look.tars):
        return InputError(f"{pattern!r}: {where} is an empty folder (hidden files do not count)")
    there = [f"{count:,} {ending}" for ending, count in look.others.most_common(_NAMED_AT_MOST)]
    if look.folders:
        there.insert(0, f"folders ({some(sorted(look.folders))})")
    message = (
        f"{pattern!r}: no *.tar, *.tgz or *.tar.gz, no picture and no Parquet found there (looked "
        f"in {where})"
    )
    message += f"; there are {', '.join(there)}" if there else ""
    return InputError(f"{message}; {_UNPACK}" if look.compressed else message)
