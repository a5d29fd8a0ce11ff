"""The files below a folder that somebody put there: without what systems leave beside them."""

import os
from collections.abc import Iterator

import fsspec
from fsspec.implementations.local import LocalFileSystem

_LEFT_BY_SYSTEMS = "__MACOSX"  # a twin, `._a.jpg`, of each file in an archive


def walk_files(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[str]:
    """Yield the paths of files below a folder, by name within each; hidden ones are passed over.

    Links to folders are followed, but into no folder twice. Nothing comes where there is no folder.
    """
    folders = _walk_local(root) if isinstance(fs, LocalFileSystem) else _walk_store(fs, root)
    for folder, names in folders:
        for name in sorted(names):
            if not is_hidden(name):
                yield f"{folder.rstrip('/')}/{name}"


def is_hidden(name: str) -> bool:
    """Tell what a system keeps for itself, by the name of a file or folder alone."""
    return name.startswith(".") or name == _LEFT_BY_SYSTEMS


def _walk_local(root: str) -> Iterator[tuple[str, list[str]]]:
    seen = {os.path.realpath(root)}
    for folder, inner, names in os.walk(root, followlinks=True):
        yield folder, names
        kept = []
        for name in sorted(inner):
            real = os.path.realpath(f"{folder}/{name}")
            if not is_hidden(name) and real not in seen:
                seen.add(real)
                kept.append(name)
        inner[:] = kept


def _walk_store(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[tuple[str, list[str]]]:
    for folder, inner, names in fs.walk(root):
        yield folder, [name for name in names if name]  # a folder's own empty object
        inner[:] = sorted(name for name in inner if not is_hidden(name))
