"""A folder of pictures as virtual shards: walked once, in the order of names.

Memory holds the names of one folder and the samples of one shard, however many there are. What
leads out of the folder is never opened: a link in it may name any file of the machine.
"""

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shards.files.notice import tell_once
from shards.files.scratch import scratch_folder
from shards.files.walk import Entry, below, is_hidden, walk
from shards.inputs.finding.look import METADATA, Look, run_above
from shards.inputs.folders.beside import Picture, pictures_in
from shards.inputs.folders.file_list import FileListWriter, FileRow, Group
from shards.inputs.folders.metadata import MetadataRows, TableRow
from shards.inputs.names import IMAGE_EXTENSIONS, extension_of
from shards.inputs.text import TextSource
from shards.naming import key_text
from shards.reasons import SampleReason
from shards.store import seconds_of

LARGEST_FILE_BYTES = 256 << 20
_KINDS = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFDIR: "folder"}


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of a file: its size and time, or why it must not be read."""

    size_bytes: int = 0
    mtime: float | None = None
    fault: str | None = None


class FolderListing:
    """Lists one folder; `within` is what links must not lead out of."""

    def __init__(
        self,
        fs: fsspec.AbstractFileSystem,
        top: str,
        look: Look,
        text: TextSource,
        samples_per_shard: int,
        within: str | None = None,
    ) -> None:
        self.fs, self.top, self.text = fs, top, text
        self._is_local = isinstance(fs, LocalFileSystem)
        self._within = os.path.realpath(within or top) if self._is_local else ""
        self._runs, self._metadata = look.runs, look.metadata
        self._samples_per_shard = samples_per_shard
        self._unused = Counter[str]()
        self._real = ("", "")  # the last folder, and what it is without links

    def write(self, writer: FileListWriter) -> Iterator[Group]:
        """Write all samples into the list; yield each virtual shard when it is full."""
        with (
            scratch_folder("metadata") as scratch,
            MetadataRows(scratch / "rows.sqlite", self.text) as tables,
        ):
            self._read_tables(tables)
            for row, times in self._rows(tables):
                writer.add(row, times)
                if len(writer) == self._samples_per_shard:
                    yield writer.close_group()
        if len(writer):
            yield writer.close_group()
        self._tell_unused()

    def _read_tables(self, tables: MetadataRows) -> None:
        for path in self._metadata:
            folder, _, name = path.rpartition("/")
            fault = self._stat(folder, name, {}, None).fault
            if fault:
                tell_once(f"{path} is left out: {fault}")
            elif not self._in_run(path):
                tables.add_table(self.fs, path, below(self.top, folder))
        tables.index()

    def _rows(self, tables: MetadataRows) -> Iterator[tuple[FileRow, list[float]]]:
        for folder, entries in groupby(self._files(), lambda entry: entry.path.rpartition("/")[0]):
            there = {entry.path.rpartition("/")[2]: entry for entry in entries}
            names = (name for name in sorted(there) if name not in METADATA)
            for picture in pictures_in(names, self.text, self._unused):
                yield from self._samples(folder, picture, there, tables)
        for row in tables.unused():
            yield self._unlisted(row)

    def _files(self) -> Iterator[Entry]:
        entries: Iterable[Entry] = walk(self.fs, self.top)
        if not self._is_local:  # a store lists by whole paths: folders stand amid their files
            entries = sorted(entries, key=lambda entry: entry.path.rpartition("/")[::2])
        for entry in entries:
            if not entry.is_folder and not self._in_run(entry.path):
                yield entry

    def _samples(
        self, folder: str, picture: Picture, there: dict[str, Entry], tables: MetadataRows
    ) -> Iterator[tuple[FileRow, list[float]]]:
        """Yield a picture, once, or once for each row of a table that names it."""
        prefix = below(self.top, f"{folder}/{picture.name}")[: -len(picture.name)]
        rows = tables.of(os.fsencode(prefix + picture.name))
        files = [picture.name, *((None, None) if rows else (picture.text, picture.meta))]
        stats = [self._stat(folder, name, there) for name in files]
        row = FileRow(key_text(os.fsencode(prefix)) + picture.key)
        row.image, row.text_file, row.meta_file = (
            None if name is None else os.fsencode(prefix + name) for name in files
        )
        row.image_bytes, row.text_bytes, row.meta_bytes = (known.size_bytes for known in stats)
        times = [known.mtime for known in stats if known.mtime is not None]
        faults = [known.fault for known in stats if known.fault]
        if faults:
            yield FileRow(row.key, reason=SampleReason.UNSAFE_MEMBER, detail=faults[0]), []
        for told in rows if not faults else ():
            yield _told(row, told), times
        if not rows and not faults:
            yield row, times

    def _unlisted(self, row: TableRow) -> tuple[FileRow, list[float]]:
        """Make the row of a picture that the walk did not find under its name."""
        if row.path is None:
            detail = f"{row.where} names {row.name!r}, which leads out of the folder"
            reason = None if not row.name else SampleReason.UNSAFE_MEMBER
            bare = FileRow(_key(row), text=row.text, meta=row.meta, reason=reason, detail=detail)
            if reason is None:
                bare.detail = f"{row.where} names no picture"
            return bare, []
        path = f"{self.top.rstrip('/')}/{os.fsdecode(row.path)}"
        folder, _, name = path.rpartition("/")
        hidden = any(map(is_hidden, os.fsdecode(row.path).split("/")))
        if hidden or not self.fs.isfile(path) or self._in_run(path):
            detail = f"{row.where} names it, and it is not there"
            return FileRow(_key(row), text=row.text, meta=row.meta, detail=detail), []
        known = self._stat(folder, name, {})
        if known.fault:
            return FileRow(_key(row), reason=SampleReason.UNSAFE_MEMBER, detail=known.fault), []
        whole = FileRow(_key(row), row.path, known.size_bytes, text=row.text, meta=row.meta)
        return whole, [] if known.mtime is None else [known.mtime]

    def _stat(
        self,
        folder: str,
        name: str | None,
        there: dict[str, Entry],
        most_bytes: int | None = LARGEST_FILE_BYTES,
    ) -> Stat:
        if name is None:
            return Stat()
        path = f"{folder}/{name}"
        if self._is_local:
            if folder != self._real[0]:
                self._real = folder, os.path.realpath(folder)
            known = local_stat(path, self._real[1], self._within)
        else:
            entry = there.get(name)
            known = _remote_stat(self.fs.info(path) if entry is None else entry.info or {})
        if most_bytes is not None and known.size_bytes > most_bytes:
            return Stat(fault=f"file of {known.size_bytes} bytes, limit {most_bytes}")
        return known

    def _in_run(self, path: str) -> bool:
        return run_above(path, self._runs) is not None

    def _tell_unused(self) -> None:
        texts = [".txt", ".caption", ".json", *(f".{ending}" for ending in IMAGE_EXTENSIONS)]
        if self.text.extension is not None:
            texts.append(f".{self.text.extension}")
        counts = {ending: self._unused[ending] for ending in texts}
        listed = [f"{count:,} {ending}" for ending, count in counts.items() if count]
        if listed:
            tell_once(f"{self.top}: files that belong to no picture, not used: {', '.join(listed)}")


def local_stat(path: str, folder: str, within: str) -> Stat:
    """Look at a file on a disk; what is no file, or leads out of `within`, is a fault.

    `folder` is where it lies, and `within` what it must lie in, both without links.
    """
    try:
        known = os.lstat(path)
        is_link = stat.S_ISLNK(known.st_mode)
        known = os.stat(path) if is_link else known  # noqa: PTH116 - a path as it was found
    except OSError as error:
        return Stat(fault=f"a link that leads nowhere ({error.strerror})")
    if not stat.S_ISREG(known.st_mode):
        return Stat(fault=f"a {_KINDS.get(stat.S_IFMT(known.st_mode), 'device')}, not a file")
    real = os.path.realpath(path) if is_link else f"{folder}/x"
    if not real.startswith(f"{within.rstrip('/')}/"):
        return Stat(fault="a link that leads out of the folder; set input.root to one above both")
    return Stat(known.st_size, known.st_mtime)


def _remote_stat(info: Mapping[str, Any]) -> Stat:
    modified = info.get("mtime") or info.get("LastModified") or info.get("created")
    return Stat(int(info.get("size") or 0), seconds_of(modified))


def _told(row: FileRow, told: TableRow) -> FileRow:
    """Return a picture with the text and the fields of a table's row."""
    return FileRow(row.key, row.image, row.image_bytes, text=told.text, meta=told.meta)


def _key(row: TableRow) -> str:
    name = posixpath.normpath(row.name) if row.path is None else os.fsdecode(row.path)
    stem, dot, _ = name.rpartition(".")
    return key_text(os.fsencode(stem if dot and extension_of(name) in IMAGE_EXTENSIONS else name))
