"""How long one question in SQL may take, and how much memory; watched from a thread of its own.

DuckDB keeps to a limit on memory in most of what it does, and ends where it is interrupted, but not
inside a single function of SQL (`levenshtein`, `repeat`), nor always behind a recursive question.
What does not end is handed to `QueryLimits.give_up`: only the process can end it.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shards.errors import CapfiltError

if TYPE_CHECKING:
    import duckdb

TIMEOUT_S = 600.0
MEMORY_GB = 4.0
SPILL_PER_MEMORY = 10
_LOOK_EVERY_S = 0.1
_GRACE_S = 5.0  # for an interrupted question to end
_MEMORY_MARGIN = 1.5  # what lies outside DuckDB's own count is small where it is lawful


class QueryLimitError(CapfiltError):
    """A question that would take more time or memory than it may."""


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What a question may take; time counts while DuckDB works, not while rows are shown."""

    timeout_s: float = TIMEOUT_S
    memory_gb: float = MEMORY_GB
    give_up: Callable[[QueryLimitError], None] | None = None

    @property
    def config(self) -> dict[str, str | bool | int | float | list[str]]:
        """DuckDB's own limits: memory, and what is spilled from it to the disk."""
        return {
            "memory_limit": f"{self.memory_gb:.6f}GB",
            "max_temp_directory_size": f"{self.memory_gb * SPILL_PER_MEMORY:.6f}GB",
        }

    @property
    def memory_message(self) -> str:
        """What is said of a question that needs more."""
        return (
            f"the question needs more than {self.memory_gb:g} GB of memory, or than "
            f"{self.memory_gb * SPILL_PER_MEMORY:g} GB of temporary files; ask for less, or give "
            "--sql-memory GB"
        )

    @property
    def time_message(self) -> str:
        """What is said of a question that takes longer."""
        return f"the question took longer than {self.timeout_s:g} s; give --sql-timeout SECONDS"


class QueryWatch:
    """Sees to it that one question on a connection keeps to its limits."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", limits: QueryLimits) -> None:
        self._connection, self._limits = connection, limits
        self._left_s = limits.timeout_s
        self._most_bytes = _resident_bytes() + int(limits.memory_gb * _MEMORY_MARGIN * 1e9)
        self._exceeded: QueryLimitError | None = None

    @contextmanager
    def work(self) -> Iterator[None]:
        """Watch a call of DuckDB; raises QueryLimitError.

        Threads of DuckDB's own may go on behind it, for which closing the connection waits.
        """
        import duckdb

        if self._left_s <= 0:
            raise QueryLimitError(self._limits.time_message)
        start_s, done = time.monotonic(), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(start_s, done), daemon=True)
        watcher.start()
        try:
            yield
        except duckdb.OutOfMemoryException:
            raise QueryLimitError(self._limits.memory_message) from None
        except duckdb.InterruptException:
            if self._exceeded is None:
                raise
            self._connection.interrupt()  # once more: threads of its own may still go on
            raise self._exceeded from None
        finally:
            done.set()
            watcher.join()
            self._left_s -= time.monotonic() - start_s

    def _watch(self, start_s: float, done: threading.Event) -> None:
        exceeded_s = None
        while not done.wait(_LOOK_EVERY_S):
            now_s = time.monotonic()
            if exceeded_s is None and (message := self._excess(now_s - start_s)) is not None:
                self._exceeded, exceeded_s = QueryLimitError(message), now_s
            if exceeded_s is None or self._exceeded is None:
                continue
            self._connection.interrupt()
            if self._limits.give_up is not None and now_s - exceeded_s > _GRACE_S:
                self._limits.give_up(self._exceeded)

    def _excess(self, working_s: float) -> str | None:
        if working_s > self._left_s:
            return self._limits.time_message
        return self._limits.memory_message if _resident_bytes() > self._most_bytes else None


def _resident_bytes() -> int:
    """Return what this process has in memory; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
