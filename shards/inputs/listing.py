"""The list of input shards: found from paths and patterns, named, recorded, and compared.

The list is fixed when a run is created; what changed since then is an error, never a silent skip.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any

import fsspec

from shards.errors import UsageError
from shards.inputs.finding.find import Found, find_inputs, info_of, open_place
from shards.inputs.folders.file_list import FileListWriter, new_list
from shards.inputs.folders.listing import FolderListing
from shards.inputs.folders.reader import time_of
from shards.inputs.names import stem
from shards.inputs.opening import open_samples
from shards.inputs.shard import (
    InputChanged,
    InputError,
    InputOptions,
    InputShard,
    changed_since_listed,
)
from shards.inputs.tables.listing import list_tables
from shards.naming import encode_name
from shards.store import filesystem, seconds_of, url_of

_NAMED_AT_MOST = 5
_PARQUET = re.compile(r"\.parquet$", re.IGNORECASE)


class InputMismatch(UsageError):  # noqa: N818 - reads as what happened
    """Another list of shards than the run was created with."""


DIVIDED_OTHERWISE = (
    "If it did not change, an earlier version of capfilt cleaned it, which divided tars into "
    "samples otherwise: clean it again into another output folder"
)


def list_inputs(
    urls: Sequence[str], root: str | None = None, options: InputOptions | None = None
) -> list[InputShard]:
    """Find the shards that files, folders, globs and brace patterns name, sorted by SHARD.

    SHARD is the path relative to `root`, or else to the folder, to the last whole folder before a
    pattern's first wildcard, or to a single file's parent; of what one folder or file is divided
    into, with a number behind it. Raises InputError.
    """
    if not urls:
        raise InputError("no input given: name tars, Parquet, a folder of them or of pictures")
    options = options or InputOptions()
    with ExitStack() as lists:
        new = cache(lambda: lists.enter_context(new_list()))  # most inputs need none
        shards = [shard for url in urls for shard in _shards_at(url, root, options, new)]
    shards.sort(key=lambda shard: shard.shard)
    _refuse_doubles(shards)
    return shards


def list_digest(shards: Iterable[InputShard]) -> str:
    """Hash a list by what must not differ: URLs, names and sizes."""
    lines = sorted(f"{shard.shard}\t{shard.size_bytes}\t{shard.url}\n" for shard in shards)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def compare_lists(recorded: Sequence[InputShard], listed: Sequence[InputShard]) -> None:
    """Refuse another list than the recorded one, with the difference (InputMismatch)."""
    old = {shard.shard: _place(shard) for shard in recorded}
    new = {shard.shard: _place(shard) for shard in listed}
    parts = [
        _some("no longer there", sorted(old.keys() - new.keys())),
        _some("new", sorted(new.keys() - old.keys())),
        _some(
            "elsewhere", [f"{s}: {old[s]} -> {new[s]}" for s in old if new.get(s, old[s]) != old[s]]
        ),
    ]
    if any(parts):
        raise InputMismatch(
            f"the input is another list ({len(listed)} shard{'' if len(listed) == 1 else 's'}) "
            f"than the one this run was created with ({len(recorded)}): "
            f"{'; '.join(part for part in parts if part)}; "
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
        if new.files_sha256 != old.files_sha256:
            raise _changed(old, "files of the names and sizes that were listed", "others")
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
    if shard.kind == "folder":
        etag, mtime = None, time_of(shard)
    else:
        etag, mtime = _version(info_of(fs, path))
    if shard.etag is not None and etag is not None:
        if etag != shard.etag:
            raise changed_since_listed(shard, f"etag {shard.etag}", f"etag {etag}")
    elif mtime != shard.mtime:
        raise changed_since_listed(shard, f"mtime {shard.mtime}", f"mtime {mtime}")


def _shards_at(
    pattern: str, root: str | None, options: InputOptions, new: Callable[[], FileListWriter]
) -> list[InputShard]:
    source = find_inputs(pattern, options.kind)
    start = source.start if root is None else open_place(root)[1]
    if source.kind == "folder":
        return list(_of_folder(source, start, pattern, options, new()))
    whole = [_shard(source.fs, info, start, pattern) for info in source.infos]
    if source.kind == "tar":
        return [shard for _, shard in whole]
    return list(list_tables(source.fs, whole, options))


def _of_folder(
    found: Found, start: str, pattern: str, options: InputOptions, writer: FileListWriter
) -> Iterator[InputShard]:
    """Divide the pictures of a folder into shards, each known by the mean time of its files."""
    name, url = _name_below(found.start, start, pattern), url_of(found.fs, found.start)
    listing = FolderListing(
        found.fs, found.start, found.look, options.text, options.samples_per_shard, start
    )
    for number, group in enumerate(listing.write(writer)):
        yield InputShard(
            url=url,
            shard=encode_name(f"{name}/{number:05}" if name else f"{number:05}"),
            size_bytes=group.size_bytes,
            mtime=group.mtime,
            kind="folder",
            first=group.number,
            count=1,
            files_sha256=group.sha256,
            listing=str(writer.path),
        )


def _place(shard: InputShard) -> str:
    """Say where a shard lies, and what of it is read."""
    if shard.kind != "parquet":
        return shard.url
    columns = f"columns {shard.image_column}, {shard.text_column}"
    return f"{shard.url} (row groups {shard.first}+{shard.count}, {columns})"


def _refuse_doubles(shards: Sequence[InputShard]) -> None:
    """Refuse a file that several inputs name, and files that would have one name."""
    by_name = Counter(shard.shard for shard in shards)
    places = Counter((shard.url, shard.shard if shard.kind != "tar" else "") for shard in shards)
    again = [url for (url, _), count in places.items() if count > 1]
    if again:
        raise InputError(
            f"files that are named twice: {len(again)}, the first is {again[0]}: the inputs "
            "overlap; list each file once, by itself or by its folder"
        )
    twice = [name for name, count in by_name.items() if count > 1]
    if not twice:
        return
    same = [shard.url for shard in shards if shard.shard == twice[0]]
    mend = "set input.root to a folder above both"
    if len({stem(url) for url in same}) < len(same):
        mend = "they differ by their endings alone: rename or remove one"
    raise InputError(
        f"shard names that occur twice: {len(twice)}, the first is {twice[0]!r}: "
        f"{' and '.join(same)}; {mend}"
    )


def _shard(
    fs: fsspec.AbstractFileSystem, info: dict[str, Any], start: str, pattern: str
) -> tuple[str, InputShard]:
    """Return a file as one shard, and its name below the root, without its ending."""
    path = str(info["name"])
    name = _PARQUET.sub("", stem(_name_below(path, start, pattern)))
    etag, mtime = _version(info)
    size_bytes = int(info["size"] or 0)
    return name, InputShard(url_of(fs, path), encode_name(name), size_bytes, etag, mtime)


def _name_below(path: str, start: str, pattern: str) -> str:
    folder = start.rstrip("/") + "/"
    if not f"{path.rstrip('/')}/".startswith(folder):
        raise InputError(f"{pattern!r}: {path} is not below input.root {start}")
    return path[len(folder) :]


def _version(info: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """Return the etag and the mtime that a store gives, as far as it does."""
    etag = info.get("ETag") or info.get("etag")
    modified = info.get("mtime") or info.get("LastModified") or info.get("created")
    return str(etag).strip('"') if etag else None, seconds_of(modified)


def _check_hash(old: InputShard, new: InputShard, sha256: str) -> None:
    now = _content_sha256(new)
    if now != sha256:
        raise _changed(old, f"sha256 {sha256}", f"sha256 {now}")


def _content_sha256(shard: InputShard) -> str:
    if shard.kind == "tar":
        fs, path = filesystem(shard.url)
        with fs.open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    with open_samples(shard) as reader:
        for _ in reader:
            pass
        return reader.sha256


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
