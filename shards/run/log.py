"""A run's own log: lines of JSON in `logs/`, one file for each command that worked on the run.

A log is for people and never decides anything, so it ends and slows no run: what cannot be written
is counted, and the work goes on. A local file has each line as soon as it is said, and a SIGKILL
loses none. A store that only takes whole files is given the file anew, now and then, by a thread.
"""

import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from shards.store import Store

FOLDER = "logs"
MOST_BYTES = 8 << 20  # of a file; then only warnings are written
MOST_WITH_WARNINGS_BYTES = 9 << 20
KEPT_FILES, KEPT_S = 50, 24 * 3600.0
PUT_EVERY_S, PUT_SOON_S = 30.0, 5.0
CLOSE_WITHIN_S = 10.0  # for the last put

_NAME = re.compile(rf"{FOLDER}/\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\dZ-[0-9a-f]{{8}}\.jsonl")
OnFailure = Callable[[Exception], None]


def new_name() -> str:
    """Draw the name of a log that begins now; names sort by time."""
    return f"{FOLDER}/{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}-{secrets.token_hex(4)}.jsonl"


def remove_old(store: Store) -> None:
    """Remove logs that are not among the newest, and that nobody has written to for a day."""
    logs = [file for file in store.survey(FOLDER) if _NAME.fullmatch(file.name)]
    for file in sorted(logs, key=lambda file: file.name)[:-KEPT_FILES]:
        if file.modified_s is not None and time.time() - file.modified_s > KEPT_S:
            store.delete(file.name)


class _Lines(Protocol):
    """Where the lines of a log go."""

    @property
    def lost(self) -> int:
        """Lines that will never be there."""

    def append(self, line: bytes, soon: bool) -> None:
        """Add a line; one that matters is there soon."""

    def close(self) -> None:
        """Write what is left to write; another line opens it again."""


class LogFile:
    """One log, within its bounds; its methods raise nothing and are called by one thread a time."""

    def __init__(self, store: Store, name: str, on_failure: OnFailure) -> None:
        """Name a log, of which nothing is made before its first line."""
        self.name, self.dropped = name, 0  # lines beyond the bounds
        self._size_bytes = 0
        path = Path(store.path(name))
        self._lines: _Lines = (
            _LocalLines(path, on_failure)
            if store.is_local
            else _StoredLines(store, name, on_failure)
        )

    @property
    def lost(self) -> int:
        """Lines that could not be written, and are not written later."""
        return self._lines.lost

    def append(self, line: bytes, soon: bool = False, last: bool = False) -> None:
        """Add a line if there is room for it: for the last ones there always is."""
        most = MOST_WITH_WARNINGS_BYTES if soon else MOST_BYTES
        if not last and self._size_bytes + len(line) > most:
            self.dropped += 1
            return
        self._size_bytes += len(line)
        self._lines.append(line, soon)

    def close(self) -> None:
        """Write what is left to write, within seconds; another line opens it again."""
        self._lines.close()


class _LocalLines:
    """Each line goes to the kernel by itself: it outlives this process, however that ends."""

    def __init__(self, path: Path, on_failure: OnFailure) -> None:
        self.lost = 0
        self._path, self._on_failure = path, on_failure
        self._descriptor: int | None = None

    def append(self, line: bytes, soon: bool) -> None:  # noqa: ARG002 - all are there at once
        try:
            self._write(line)
        except OSError as error:
            self.lost += 1
            self._on_failure(error)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _write(self, line: bytes) -> None:
        if self._descriptor is None:
            self._path.parent.mkdir(exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o666)
        before = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                raise OSError(f"{written} of {len(line)} bytes were written")
        except OSError:
            os.ftruncate(self._descriptor, before)  # half a line would spoil the next, too
            raise


class _StoredLines:
    """All lines are kept in memory, and put whole by a thread: at most every so many seconds."""

    lost = 0  # the next put brings all

    def __init__(self, store: Store, name: str, on_failure: OnFailure) -> None:
        self._store, self._name, self._on_failure = store, name, on_failure
        self._data = bytearray()
        self._change = threading.Condition()
        self._due: float | None = None  # when to put next; None: nothing is new
        self._put_at, self._closing = -PUT_EVERY_S, False
        self._thread: threading.Thread | None = None

    def append(self, line: bytes, soon: bool) -> None:
        with self._change:
            self._data += line
            due = self._put_at + (PUT_SOON_S if soon else PUT_EVERY_S)
            self._due = due if self._due is None else min(due, self._due)
            if self._thread is None:
                self._closing = False
                self._thread = threading.Thread(target=self._work, name="log", daemon=True)
                self._thread.start()
            self._change.notify()

    def close(self) -> None:
        with self._change:
            thread, self._closing = self._thread, True
            self._change.notify()
        if thread is not None:
            thread.join(CLOSE_WITHIN_S)

    def _work(self) -> None:
        while (lines := self._next()) is not None:
            try:
                self._store.put(self._name, lines)
            except Exception as error:  # whatever a store's client raises
                with self._change:
                    self._due = None if self._closing else time.monotonic() + PUT_EVERY_S
                self._on_failure(error)
            self._put_at = time.monotonic()

    def _next(self) -> bytes | None:
        """Wait until lines are due, and return all there are; None at the end."""
        with self._change:
            while True:
                if self._due is None and self._closing:
                    self._thread = None
                    return None
                left_s = None if self._due is None else self._due - time.monotonic()
                if left_s is not None and (self._closing or left_s <= 0):
                    self._due = None
                    return bytes(self._data)
                self._change.wait(left_s)
