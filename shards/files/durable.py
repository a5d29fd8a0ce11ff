"""Local files and folders that appear whole or not at all, and outlive a power cut."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp-"
MARK = ".capfilt-unfinished"  # in a folder that is being written, or removed


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
    """Lend a folder beside `path` that gets its name at the end of the block.

    It is empty but for a mark that goes before it gets its name; all else that lies in it is on the
    disk by then. It is removed if the block fails; what a kill has left of it, the next call
    removes, by the mark. `aside` is its name until then (default: `.NAME.partial`), or one like it
    if something else has that. With `replace` a folder that is there already makes way; without,
    one that is not empty is an OSError.
    """
    aside = _free(aside or path.with_name(f".{path.name}.partial"))
    aside.mkdir(parents=True, exist_ok=True)
    mark = aside / MARK
    mark.touch()
    try:
        yield aside
        for written in (*aside.rglob("*"), aside):
            sync(written)
        if replace and path.exists():
            remove_folder(path)
        mark.unlink()  # a kill right here leaves a folder that is taken for a stranger's
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(path)
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder, which a kill leaves whole, or under a hidden name: `.NAME.old.partial`."""
    aside = _free(path.with_name(f".{path.name}.old.partial"))
    path.rename(aside)
    (aside / MARK).touch()
    remove_marked(aside)


def remove_marked(folder: Path) -> None:
    """Remove a folder that a kill has left unfinished; one without our mark stays as it is."""
    if not is_marked(folder):
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:  # which goes last: a kill leaves it known as ours
            path.unlink()
    shutil.rmtree(folder)


def is_marked(folder: Path) -> bool:
    """Check for a folder that `whole_folder` or `remove_folder` has left unfinished."""
    return not folder.is_symlink() and (folder / MARK).is_file()


def _free(path: Path) -> Path:
    """Return a path that nothing has, or an empty folder; this one if it can be."""
    remove_marked(path)
    if path.is_symlink() or (path.exists() and not _is_empty(path)):
        return path.with_name(f"{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    return path


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


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
