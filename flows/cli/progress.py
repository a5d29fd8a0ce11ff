"""Progress by samples: a bar on a terminal, a plain line now and then elsewhere."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0

Item = TypeVar("Item")


class SampleProgress:
    """Turns counts of samples, heard from any thread, into rate and time left.

    Where nobody knows how many there are, the share of the work that is done may be told instead.
    """

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
        self._task = self._bar.add_task(what, total=1.0, rate=0.0)

    def add(self, samples: int, share: float | None = None) -> None:
        """Hear that so many more are done, and perhaps which share of all work that makes."""
        with self._lock:
            self._done += samples
            if self._total:
                share = self._done / self._total
            now = time.monotonic()
            rate = self._done / max(now - self._started, 1e-9)
            self._bar.update(self._task, completed=share or 0.0, rate=rate)
            if not self._console.is_terminal and now - self._said_at >= LINE_EVERY_S:
                self._said_at = now
                self._console.print(f"{self._what}: {self._line(rate, share, now)}")

    def phase(self, what: str) -> Callable[[int, int], None]:
        """Give what hears how much of another work is done, of how much; it begins when heard."""

        def reach(done: int, total: int) -> None:
            if self._what != what:
                self._begin(what, total)
            self.add(done - self._done)

        return reach

    def _begin(self, what: str, total: int) -> None:
        with self._lock:
            self._what, self._total = what, total
            self._done, self._started = 0, time.monotonic()
            self._bar.reset(self._task, description=what, total=1.0, rate=0.0)

    def _line(self, rate: float, share: float | None, now: float) -> str:
        of = f" of {self._total}" if self._total is not None else ""
        line = f"{self._done}{of} samples, {rate:,.0f} samples/s"
        return f"{line}, {(now - self._started) * (1 / share - 1):.0f} s left" if share else line

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


class FromTars(Protocol):
    """A sample that knows how far its tars have been read."""

    @property
    def share_read(self) -> float | None:
        """Of the bytes of all tars."""


Sample = TypeVar("Sample", bound=FromTars)


def counted_by_bytes(
    samples: Iterable[Sample], progress: SampleProgress, limit: int | None = None
) -> Iterator[Sample]:
    """Yield samples out of tars, whose number nobody knows, but for a limit, and count them."""
    for number, sample in enumerate(samples, 1):
        yield sample
        share = sample.share_read or 0.0
        progress.add(1, max(share, number / limit) if limit else share)
