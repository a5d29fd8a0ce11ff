"""The log in a run's folder: what is told of the run, a JSON object a line."""

import json
import logging
import math
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from flows.run_log.events import fields_of, heard_by
from flows.run_log.redaction import Redactor, secrets_of
from shards.run.log import LogFile, new_name, remove_old
from shards.store import Store

ENDED = "ended"  # the event that there is always room for
MOST_LINE_BYTES, MOST_HELD = 8 << 10, 1_000
MOST_TEXT, MOST_ITEMS, MOST_DEPTH = 2_000, 100, 6  # characters of a text, of a list, of both
SHORT_TEXT = 200  # where a line has too many long ones

_log = logging.getLogger(__name__)


class RunLog(logging.Handler):
    """Writes the log of one command on a run; nothing is made in the folder before `recording`."""

    def __init__(self, store: Store, forwarded: Iterable[str] = ()) -> None:
        """`forwarded`: names of environment variables that workers are given: credentials."""
        super().__init__(logging.INFO)
        self._store, self._redact = store, Redactor(secrets_of(forwarded))
        self._file = LogFile(store, new_name(), self._say_failure)
        # until the first recording
        self._held: deque[logging.LogRecord] | None = deque(maxlen=MOST_HELD)
        self._failed = threading.Event()
        self._unreadable = 0  # records that no line could be made of
        self._counted: dict[str, int] = {}

    @property
    def name_in_run(self) -> str:
        """The log's name in the run folder."""
        return self._file.name

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Keep what is told in the block, for a run that may not be there yet."""
        with heard_by(self):
            yield

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write what was kept, and what is told in the block."""
        held, self._held = self._held, None
        if held is not None:
            with suppress(Exception):  # whatever a store's client raises; old logs harm nobody
                remove_old(self._store)
            for record in held:
                self.handle(record)
        try:
            with heard_by(self):
                yield
        finally:
            self._count()
            self._file.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a log raises nothing."""
        if self._held is not None:
            self._held.append(record)
            return
        try:
            line = line_of(record, self._redact)
        except Exception:  # a record with the wrong arguments, say
            self._unreadable += 1
            return
        warns = record.levelno >= logging.WARNING
        last = getattr(record, "fields", {}).get("event") == ENDED
        self._file.append(line, soon=warns or last, last=last)

    def _count(self) -> None:
        """Write a last line about the lines that are not there, if there are any."""
        counts = {
            "dropped": self._file.dropped,
            "unwritten": self._file.lost,
            "unreadable": self._unreadable,
        }
        if counts == self._counted or not any(counts.values()):
            return
        self._counted = counts
        line = "lines of this log are missing: it is full, or they could not be written"
        record = logging.makeLogRecord({"name": __name__, "msg": line, "levelno": logging.WARNING})
        record.levelname = "WARNING"
        record.__dict__ |= fields_of("incomplete", **counts)
        self._file.append(line_of(record, self._redact), soon=True, last=True)

    def _say_failure(self, error: Exception) -> None:
        if not self._failed.is_set():
            self._failed.set()
            where, why = self._store.url(self._file.name), self._redact(str(error))
            _log.warning("%s cannot be written: %s. The run goes on without its log", where, why)


def line_of(record: logging.LogRecord, redact: Redactor) -> bytes:
    """Write a record as one line of JSON, in ASCII, with neither secrets nor control characters."""
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    head = {"at": at.replace("+00:00", "Z"), "level": record.levelname.lower()}
    fields = getattr(record, "fields", None)
    if isinstance(fields, Mapping) and "event" in fields:
        head["event"] = str(fields["event"])
        said = {name: value for name, value in fields.items() if name not in head}
    else:
        said = {"message": record.getMessage(), "logger": record.name}
    for most in (MOST_TEXT, SHORT_TEXT):
        line = json.dumps(head | _plain(said, redact, most)).encode() + b"\n"
        if len(line) <= MOST_LINE_BYTES:
            return line
    return json.dumps(head | {"cut": len(line)}).encode() + b"\n"


def _plain(value: Any, redact: Redactor, most: int, depth: int = 0) -> Any:  # noqa: ANN401 - JSON
    """Return a value that JSON can hold, within bounds and without secrets."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < MOST_DEPTH and isinstance(value, Mapping):
        items = list(value.items())[:MOST_ITEMS]
        return {str(key)[:SHORT_TEXT]: _plain(v, redact, most, depth + 1) for key, v in items}
    if depth < MOST_DEPTH and isinstance(value, list | tuple):
        return [_plain(item, redact, most, depth + 1) for item in value[:MOST_ITEMS]]
    text = redact(str(value))
    return text if len(text) <= most else text[:most] + "…"
