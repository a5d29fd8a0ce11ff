"""Local files and folders that appear whole or not at all, and outlive a power cut."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp-"


def sync(path: Path) -> None:
    """Wait until a local file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder whose own entry outlives a power cut, like the files in it."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


@contextmanager
def whole_folder(path: Path, aside: Path | None = None, *, replace: bool = False) -> Iterator[Path]:
    """Lend an empty folder beside `path` that gets its name at the end of the block.

    All that lies in it is on the disk by then. It is removed if the block fails; what a kill has
    left of it, the next call removes. `aside` is its name until then (default: `.NAME.partial`).
    With `replace` a folder that is there already makes way; without, one that is not empty is an
    OSError.
    """
    aside = aside or path.with_name(f".{path.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for written in (*aside.rglob("*"), aside):
            sync(written)
        if replace and path.exists():
            remove_folder(path)
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder, which a kill leaves whole, or under a hidden name: `.NAME.old.partial`."""
    aside = path.with_name(f".{path.name}.old.partial")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    shutil.rmtree(aside)


def write_whole(path: Path, text: str) -> None:
    """Write a small file in one step, over what is there; until then it is `.NAME.partial`."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def move_whole(staged: Path, final: Path) -> None:
    """Give a finished file its name, once all of it is on the disk."""
    make_folder(final.parent)
    sync(staged)
    staged.rename(final)
    sync(final.parent)


def put_whole(final: Path, data: bytes) -> None:
    """Write a small file in one step, over what is there; safe on the disk by the end."""
    with temporary_file(final, data) as temporary:
        temporary.rename(final)
    sync(final.parent)


@contextmanager
def temporary_file(final: Path, data: bytes) -> Iterator[Path]:
    """Write data, safe on disk, beside `final`; what is left of it at the end is removed."""
    make_folder(final.parent)
    path = final.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)
