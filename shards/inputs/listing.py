"""The list of input shards: found from paths and patterns, named, recorded, and compared.

The list is fixed when a run is created; what changed since then is an error, never a silent skip.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec
from braceexpand import braceexpand

from shards.errors import CapfiltError, UsageError
from shards.files.regular import check_regular
from shards.naming import encode_name
from shards.store import filesystem, seconds_of, url_of

_WILD = "{*?["
_TARS = (".tar", ".tar.gz")
_TABLES = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".txt")
_NAMED_AT_MOST = 5


class InputError(UsageError):
    """An input that names no WebDataset tars, or the same shard twice."""


class InputMismatch(UsageError):  # noqa: N818 - reads as what happened
    """Another list of shards than the run was created with."""


class InputChanged(CapfiltError, ValueError):  # noqa: N818 - reads as what happened
    """A shard is not the one that the run was created with."""


@dataclass(frozen=True, slots=True)
class InputShard:
    """One input tar: an absolute URL (a plain path if local), its SHARD name, and its identity.

    `mtime` is in seconds since 1970. A store that knows neither etag nor mtime is trusted by size.
    """

    url: str
    shard: str
    size_bytes: int
    etag: str | None = None
    mtime: float | None = None


def list_inputs(urls: Sequence[str], root: str | None = None) -> list[InputShard]:
    """Find the tars that files, folders, globs and brace patterns name, sorted by SHARD.

    SHARD is the path relative to `root`, or else to the folder, to the last whole folder before a
    pattern's first wildcard, or to a single file's parent. Raises InputError.
    """
    if not urls:
        raise InputError("no input given: name a WebDataset tar, a folder of them, or a pattern")
    shards = [shard for url in urls for shard in _shards_at(url, root)]
    shards.sort(key=lambda shard: shard.shard)
    twice = [name for name, count in Counter(s.shard for s in shards).items() if count > 1]
    if twice:
        same = [shard.url for shard in shards if shard.shard == twice[0]]
        raise InputError(
            f"{len(twice)} shard names occur twice, the first is {twice[0]!r}: "
            f"{' and '.join(same)}; set input.root to a folder above both, or list each file once"
        )
    return shards


def list_digest(shards: Iterable[InputShard]) -> str:
    """Hash a list by what must not differ: URLs, names and sizes."""
    lines = sorted(f"{shard.shard}\t{shard.size_bytes}\t{shard.url}\n" for shard in shards)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def compare_lists(recorded: Sequence[InputShard], listed: Sequence[InputShard]) -> None:
    """Refuse another list than the recorded one, with the difference (InputMismatch)."""
    old = {shard.shard: shard.url for shard in recorded}
    new = {shard.shard: shard.url for shard in listed}
    parts = [
        _some("no longer there", sorted(old.keys() - new.keys())),
        _some("new", sorted(new.keys() - old.keys())),
        _some(
            "elsewhere", [f"{s}: {old[s]} -> {new[s]}" for s in old if new.get(s, old[s]) != old[s]]
        ),
    ]
    if any(parts):
        raise InputMismatch(
            f"the input is another list ({len(listed)} shards) than the one this run was created "
            f"with ({len(recorded)}): {'; '.join(part for part in parts if part)}; "
            "give the same input, or another output folder (training takes several runs)"
        )


def check_unchanged(
    recorded: Sequence[InputShard],
    listed: Sequence[InputShard],
    sha256_of: Mapping[str, str] | None = None,
) -> None:
    """Refuse a shard whose content is not what was recorded (InputChanged).

    Size and etag decide, or else size and mtime. Where only the mtime differs the shard is hashed
    again and compared with `sha256_of`, the hashes of the shards already committed by SHARD; one
    that is not committed yet has no output that its content could belie, and passes.
    """
    now = {shard.shard: shard for shard in listed}
    for old in recorded:
        new = now[old.shard]
        if new.size_bytes != old.size_bytes:
            raise _changed(old, f"{old.size_bytes} bytes", f"{new.size_bytes} bytes")
        if old.etag is not None and new.etag is not None:
            if old.etag != new.etag:
                raise _changed(old, f"etag {old.etag}", f"etag {new.etag}")
        elif old.mtime != new.mtime and old.shard in (sha256_of or {}):
            _check_hash(old, new, (sha256_of or {})[old.shard])


def check_current(shard: InputShard) -> None:
    """Refuse a shard that changed since it was listed, by its etag, or else mtime (InputChanged).

    To be asked when it has been read: its size may be the same, and its content another.
    """
    fs, path = filesystem(shard.url)
    fs.invalidate_cache()
    etag, mtime = _version(fs.info(path))
    if shard.etag is not None and etag is not None:
        if etag != shard.etag:
            raise changed_since_listed(shard, f"etag {shard.etag}", f"etag {etag}")
    elif mtime != shard.mtime:
        raise changed_since_listed(shard, f"mtime {shard.mtime}", f"mtime {mtime}")


def changed_since_listed(shard: InputShard, expected: str, found: str) -> InputChanged:
    """Make the error of a shard that is read while it changes."""
    return InputChanged(
        f"input shard {shard.shard!r} ({shard.url}) changed since it was listed: expected "
        f"{expected}, found {found}; restore it, or clean into another output folder"
    )


def _shards_at(pattern: str, root: str | None) -> list[InputShard]:
    if pattern.startswith("pipe:"):
        raise InputError(f"{pattern!r}: pipe: inputs run commands and are refused; name files")
    if pattern.lower().endswith(_TABLES):
        raise InputError(f"{pattern!r} is a table; clean reads WebDataset tars (KEY.jpg + KEY.txt)")
    fs, path = _filesystem(pattern)
    if not fs.exists(path) and any(sign in path for sign in _WILD):
        start, infos = _wild_root(path), _matches(fs, path, pattern)
    elif fs.isdir(path):
        start, infos = path, _tars(fs.find(path, detail=True).values())
    else:
        start, infos = str(PurePosixPath(path).parent), [_info(fs, path, pattern)]
    if not infos:
        raise InputError(f"{pattern!r}: no *.tar or *.tar.gz found there (looked in {start})")
    if root is not None:
        start = _filesystem(root)[1]
    return [_shard(fs, info, start, pattern) for info in infos]


def _filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        return filesystem(url)
    except (ValueError, ImportError) as error:
        raise InputError(f"{url!r}: {error}") from error


def _matches(
    fs: fsspec.AbstractFileSystem, path_pattern: str, pattern: str
) -> list[dict[str, Any]]:
    """Expand braces into paths that must exist, and globs into the tars that do."""
    try:
        paths = list(braceexpand(path_pattern, escape=False))
    except ValueError as error:
        raise InputError(f"{pattern!r}: unbalanced braces") from error
    infos: list[dict[str, Any]] = []
    for path in paths:
        if any(sign in path for sign in "*?["):
            infos += _tars(fs.glob(path, detail=True).values())
        else:
            infos.append(_info(fs, path, pattern))
    return infos


def _info(fs: fsspec.AbstractFileSystem, path: str, pattern: str) -> dict[str, Any]:
    try:
        info: dict[str, Any] = fs.info(path)
    except FileNotFoundError as error:
        raise InputError(f"{pattern!r}: there is no {path}") from error
    if info["type"] == "directory":
        raise InputError(f"{pattern!r}: {path} is a folder; end the pattern with *.tar")
    _check_file(info)
    return info


def _tars(infos: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    tars = [i for i in infos if i["type"] != "directory" and str(i["name"]).endswith(_TARS)]
    for info in tars:
        _check_file(info)
    return tars


def _check_file(info: Mapping[str, Any]) -> None:
    if info["type"] == "other":  # of fsspec's local files: neither file nor folder
        check_regular(str(info["name"]))


def _wild_root(pattern: str) -> str:
    first = min(pattern.index(sign) for sign in _WILD if sign in pattern)
    return pattern[:first].rpartition("/")[0]


def _shard(
    fs: fsspec.AbstractFileSystem, info: dict[str, Any], start: str, pattern: str
) -> InputShard:
    path, folder = str(info["name"]), start.rstrip("/") + "/"
    if not path.startswith(folder):
        raise InputError(f"{pattern!r}: {path} is not below input.root {start}")
    etag, mtime = _version(info)
    return InputShard(
        url=url_of(fs, path),
        shard=encode_name(path[len(folder) :].removesuffix(".tar")),
        size_bytes=int(info["size"] or 0),
        etag=etag,
        mtime=mtime,
    )


def _version(info: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """Return the etag and the mtime that a store gives, as far as it does."""
    etag = info.get("ETag") or info.get("etag")
    modified = info.get("mtime") or info.get("LastModified") or info.get("created")
    return str(etag).strip('"') if etag else None, seconds_of(modified)


def _check_hash(old: InputShard, new: InputShard, sha256: str) -> None:
    fs, path = filesystem(new.url)
    with fs.open(path, "rb") as file:
        now = hashlib.file_digest(file, "sha256").hexdigest()
    if now != sha256:
        raise _changed(old, f"sha256 {sha256}", f"sha256 {now}")


def _changed(old: InputShard, expected: str, found: str) -> InputChanged:
    return InputChanged(
        f"input shard {old.shard!r} ({old.url}) changed since the run was created: expected "
        f"{expected}, found {found}; restore it, or clean into another output folder"
    )


def _some(title: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return f"{len(names)} {title}: {', '.join(names[:_NAMED_AT_MOST])}{more}"
