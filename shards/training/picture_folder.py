"""The pictures below a folder, found by the names that annotation files give them.

A name is tried as it stands first. Then its other readings are compared, from their end, with all
paths in the folder: a picture is taken where one alone fits, and never outside of the folder.
"""

import errno
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import PurePosixPath
from threading import Lock

from shards.files.regular import NotRegular
from shards.files.walk import walk_files
from shards.reasons import SampleReason
from shards.store import filesystem, url_of
from shards.training.left_out import Unusable, excerpt
from shards.training.picture_name import (
    NamesTogether,
    Parts,
    Reading,
    folded,
    is_name,
    is_picture,
    last_number,
    readings,
    shared_end,
    unusable,
    without_ending,
)

MAX_PICTURE_BYTES = 256 << 20
MAX_LISTED = 2_000_000  # files of a folder
_MOST_COPIES = 4  # of a picture, which are read to compare them
_NO_SUCH_NAME = {errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP}


@dataclass(frozen=True, slots=True)
class FolderPicture:
    """A picture's path below its folder, and its bytes."""

    path: str
    data: bytes


@dataclass(slots=True)
class _Listing:
    """Paths below a folder: by the file's name without its picture's ending, and by last number."""

    by_stem: dict[str, list[str]] = field(default_factory=dict)
    by_number: dict[int, list[str]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    count: int = 0

    def add(self, path: str) -> None:
        """Add a file by its path below the folder."""
        parts = folded(path.split("/"))
        self.count += 1
        self.by_stem.setdefault(without_ending(parts)[-1], []).append(path)
        self.folders.update(parts[:-1])
        number = last_number(path)
        if number is not None and is_picture(path):
            self.by_number.setdefault(number, []).append(path)

    def named(self, parts: Parts) -> list[str]:
        """Return the files of a path's last name, wherever they lie."""
        return self.by_stem.get(without_ending(parts)[-1], []) if parts else []

    def matches(self, reading: Reading, root: Parts) -> list[str]:
        """Return the files that a path may mean: of those that share an end, the longest.

        A relative path must be the whole of that end, or the file's must be: there may be folders
        more or fewer. Of an absolute one, of another machine, the file's must be, and share a
        folder, were it the root.
        """
        is_below = reading.is_absolute and len(root) > 0 and reading.parts[: len(root)] == root
        wanted = folded(reading.parts[len(root) :] if is_below else reading.parts)
        above = folded(root) if reading.is_absolute and not is_below else ()
        ends = {path: shared_end((*above, *path.split("/")), wanted) for path in self.named(wanted)}
        whole = [path for path in ends if ends[path] == len(wanted) == _depth(path)]
        longest = max(ends.values(), default=0)
        if whole or is_below or not longest:
            return whole
        if longest < len(wanted) and wanted[-longest - 1] in self.folders:
            return []  # the folder is here that the picture should lie in
        if reading.is_absolute and longest == 1 < len(wanted):
            return []
        best = [path for path in ends if ends[path] == longest]
        return [path for path in best if longest == len(wanted) or longest >= _depth(path)]


class PictureFolder:
    """A folder whose pictures annotation files name; it need not be there. For several threads."""

    def __init__(self, url: str) -> None:
        self._fs, root = filesystem(url)
        self._root, self._lock = root.rstrip("/"), Lock()
        self._kept: _Listing | None = None
        self.url = url_of(self._fs, self._root)

    def read(self, name: object, among: NamesTogether | None = None) -> FolderPicture | Unusable:
        """Read a picture, or say why there is none; a lost connection raises.

        `among` are the names of the annotation file: two of them never mean one picture by their
        last parts alone.
        An object store may answer in ways of its own for what is not there.
        """
        reason = unusable(name)
        if reason is not None or not is_name(name):
            example = f"{excerpt(name)} names no file below a folder"
            return Unusable(reason or SampleReason.IMAGE_MISSING, example)
        if isinstance(name, int):
            path = self._find_number(name)
        else:
            picture = self._read_as_it_stands(name)
            if picture is not None:
                return picture
            path = self._find(name, among)
        if isinstance(path, Unusable):
            return path
        return self._read(path) or self._missing(path, "it was there, and is gone")

    def _read_as_it_stands(self, name: str) -> FolderPicture | Unusable | None:
        path = PurePosixPath(name)
        return None if path.is_absolute() else self._read(str(path))

    def _read(self, path: str) -> FolderPicture | Unusable | None:
        """Read a file below the folder; None where there is none."""
        full = f"{self._root}/{path}"
        try:
            size_bytes = self._fs.size(full) or 0
            if size_bytes > MAX_PICTURE_BYTES:
                return Unusable(SampleReason.IMAGE_TOO_LARGE, f"{full} has {size_bytes:,} bytes")
            data = self._fs.cat_file(full)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except NotRegular as error:
            return Unusable(SampleReason.IMAGE_MISSING, str(error))
        except OSError as error:
            if error.errno in _NO_SUCH_NAME:
                return None
            raise
        return FolderPicture(path, data) if data else Unusable(SampleReason.IMAGE_EMPTY, full)

    def _find(self, name: str, among: NamesTogether | None) -> str | Unusable:
        listing = self._listing()
        if listing.count >= MAX_LISTED:
            return self._missing(name, f"{self.url} has too many files to look further")
        root = PurePosixPath(self._root).parts[1:]  # behind / or the bucket
        for reading in readings(name):
            paths = listing.matches(reading, root)
            if len(paths) > 1:
                return self._missing(name, _several(paths))
            if paths:
                rival = _rival(paths[0], reading, root, among)
                return self._missing(name, rival) if rival else paths[0]
        if name.isascii() and name.isdigit() and int(name) in listing.by_number:
            return self._find_number(int(name))
        return self._missing(name, self._why(name, listing))

    def _why(self, name: str, listing: _Listing) -> str:
        *_, last = readings(name)
        if paths := listing.named(folded(last.parts)):
            return f"a file of this name is there in another folder: {self.url}/{min(paths)}"
        if not listing.count:
            return f"there is no file below {self.url}"
        return f"no file has this name of the {listing.count:,} below {self.url}"

    def _find_number(self, number: int) -> str | Unusable:
        paths = sorted(self._listing().by_number.get(number, []))
        if not paths:
            why = f"no picture below {self.url} has it as the last number in its name"
        elif len(paths) == 1 or self._are_copies(paths):
            return paths[0]
        else:
            why = _several(paths)
        return Unusable(SampleReason.IMAGE_MISSING, f"{number}: {why}")

    def _are_copies(self, paths: list[str]) -> bool:
        """Compare a few pictures: COCO's of 2014 and of 2017 are the same."""
        if len(paths) > _MOST_COPIES:
            return False
        found = [self._read(path) for path in paths]
        return len({one.data if isinstance(one, FolderPicture) else None for one in found}) == 1

    def _missing(self, name: str, why: str) -> Unusable:
        tried = name if next(readings(name)).is_absolute else f"{self.url}/{name}"
        return Unusable(SampleReason.IMAGE_MISSING, f"{excerpt(name)}: tried {tried[:300]}; {why}")

    def _listing(self) -> _Listing:
        with self._lock:
            if self._kept is None:
                self._kept = _Listing()
                for path in islice(walk_files(self._fs, self._root), MAX_LISTED):
                    self._kept.add(path.removeprefix(self._root).lstrip("/"))
            return self._kept


def picture_folder(url: str) -> PictureFolder:
    """Return a folder, which a process lists once at most."""
    return _folder_at(url_of(*filesystem(url)))


@lru_cache(maxsize=8)
def _folder_at(url: str) -> PictureFolder:
    return PictureFolder(url)


def _several(paths: list[str]) -> str:
    return f"{len(paths):,} files could be meant: {', '.join(sorted(paths)[:3])}"


def _depth(path: str) -> int:
    return path.count("/") + 1


def _rival(path: str, reading: Reading, root: Parts, among: NamesTogether | None) -> str | None:
    """Say which other name of the annotation file could mean a file, if the start is dropped."""
    wanted = folded(reading.parts)
    above = root if reading.is_absolute else ()
    depth = shared_end((*above, *path.split("/")), wanted)
    if among is None or depth == len(wanted):
        return None
    rival = among.rival(wanted, depth)
    return rival and f"{path} has not this folder, and {excerpt(rival)} could mean it too"
