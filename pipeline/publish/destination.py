"""Where an export is written: a local folder, or a store; in both it is whole, or not there.

A local one is made aside and gets its name at the end. To a store each file goes as soon as it is
written, so that the disk holds one at a time, and `export.json`, which makes it an export, last;
until then `export.unfinished` says that what lies there is ours to write over.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pipeline.publish.cards import NAME as CARD
from shards.errors import UsageError
from shards.files.durable import whole_folder
from shards.files.regular import check_regular
from shards.files.scratch import scratch_folder
from shards.store import Store

RECORD, UNFINISHED, DATA = "export.json", "export.unfinished", "data"


class ExportError(UsageError):
    """An export that cannot be made as it was asked for."""


@contextmanager
def open_destination(to: str) -> Iterator["LocalDestination | StoreDestination"]:
    """Open a local folder, or a URL of any fsspec store."""
    store = Store(to)
    if store.is_local:
        with ExitStack() as closing:
            yield LocalDestination(Path(store.url()), closing)
        return
    with scratch_folder("export") as scratch:
        yield StoreDestination(store, scratch)


class LocalDestination:
    """A new local folder."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self._folder, self._closing = folder, closing

    def existing_record(self) -> dict[str, Any] | None:
        """Read the record of the export that is there; ExportError if there is anything else.

        An empty folder is as good as none.
        """
        if not self._folder.exists():
            return None
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()
            return None
        check_regular(self._folder / RECORD)
        try:
            return _parsed((self._folder / RECORD).read_bytes())
        except (OSError, ValueError):
            raise ExportError(f"{self._folder} is there and holds no export; {_OTHER}") from None

    def start(self) -> Path:
        """Return an empty folder for the data's files; what a kill has left is no part of it."""
        self._aside = self._closing.enter_context(whole_folder(self._folder))
        (self._aside / DATA).mkdir()
        return self._aside / DATA

    def add(self, file: Path) -> None:
        """Take a finished file of that folder, which lies where it stays."""

    def finish(self, record: Mapping[str, Any], card: str) -> None:
        """Make the added files an export."""
        for name, text in ((RECORD, json.dumps(record, indent=2)), (CARD, card)):
            (self._aside / name).write_text(text, encoding="utf-8")
        self._closing.close()


class StoreDestination:
    """A folder of a store that has no renaming."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store, self._scratch = store, scratch
        self._added: set[str] = set()

    def existing_record(self) -> dict[str, Any] | None:
        """Read the record as in a folder; the beginning that a kill has left is as good as none."""
        if self._store.exists(RECORD):
            try:
                return _parsed(self._store.read(RECORD))
            except ValueError:
                raise ExportError(f"{self._store.url(RECORD)} is no record; {_OTHER}") from None
        names = self._store.list()
        if names and UNFINISHED not in names:
            raise ExportError(f"{self._store.url(names[0])} belongs to no export; {_OTHER}")
        return None

    def start(self) -> Path:
        """Return an empty local folder, from which `add` takes each file."""
        self._store.put(UNFINISHED, b"")
        return self._scratch

    def add(self, file: Path) -> None:
        """Move a finished file of that folder to the store."""
        name = f"{DATA}/{file.name}"
        self._store.publish(file, name)
        self._added.add(name)
        file.unlink()

    def finish(self, record: Mapping[str, Any], card: str) -> None:
        """Make the added files an export; those that a broken export had, and this has not, go."""
        for name in self._store.list(DATA):
            if name not in self._added and _DATA_FILE.fullmatch(name):
                self._store.delete(name)
        self._store.put(CARD, card.encode())
        self._store.put(RECORD, json.dumps(record, indent=2).encode())
        self._store.delete(UNFINISHED)


_DATA_FILE = re.compile(rf"{DATA}/(?:train|dropped)-\d{{5,}}\.(?:parquet|tar)")
_OTHER = "give a new folder"


def _parsed(data: bytes) -> dict[str, Any]:
    record = json.loads(data)
    if not isinstance(record, dict):
        raise ValueError("a record is an object")
    return record
