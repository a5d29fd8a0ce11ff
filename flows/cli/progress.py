"""Progress by samples: a bar on a terminal, a plain line now and then elsewhere."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0

Item = TypeVar("Item")


class SampleProgress:
    """Turns counts of samples, heard from any thread, into rate and time left."""

    def __init__(self, console: Console, what: str, total: int | None) -> None:
        self._console, self._what, self._total = console, what, total
        self._lock = threading.Lock()
        self._done, self._started = 0, time.monotonic()
        self._said_at = self._started
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%  {task.fields[rate]:,.0f} samples/s  left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total, rate=0.0)

    def add(self, samples: int) -> None:
        """Hear that so many more are done."""
        with self._lock:
            self._done += samples
            now = time.monotonic()
            rate = self._done / max(now - self._started, 1e-9)
            self._bar.update(self._task, completed=self._done, rate=rate)
            if not self._console.is_terminal and now - self._said_at >= LINE_EVERY_S:
                self._said_at = now
                self._console.print(f"{self._what}: {self._line(rate)}")

    def _line(self, rate: float) -> str:
        if self._total is None:
            return f"{self._done} samples, {rate:,.0f} samples/s"
        left_s = (self._total - self._done) / max(rate, 1e-9)
        return f"{self._done} of {self._total} samples, {rate:,.0f} samples/s, {left_s:.0f} s left"

    def start(self) -> None:
        """Show the bar."""
        self._bar.start()

    def stop(self) -> None:
        """Leave the screen to the result."""
        self._bar.stop()


@contextmanager
def watch_samples(what: str, total: int | None) -> Iterator[SampleProgress]:
    """Show progress on standard error, so that standard output holds the result alone."""
    progress = SampleProgress(Console(stderr=True, soft_wrap=True), what, total)
    progress.start()
    try:
        yield progress
    finally:
        progress.stop()


def counted(items: Iterable[Item], progress: SampleProgress) -> Iterator[Item]:
    """Yield items and count them."""
    for item in items:
        yield item
        progress.add(1)
