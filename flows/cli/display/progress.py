"""Progress of whatever a command does: a bar on a terminal, a plain line now and then elsewhere.

It goes to standard error, so that standard output holds the result alone.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TimeRemainingColumn,
)

from flows.engines.engine import ShardDone, ShardFailed
from flows.stages.progress import CleanProgress, training_line, training_numbers
from pipeline.printable import number_of

if TYPE_CHECKING:
    from flows.engines.engine import ShardResult
    from flows.stages.clean import CleanJob

LINE_EVERY_S = 10.0

Item = TypeVar("Item")


class Display:
    """One bar, or the lines in its place; `columns` say how far the work is, in its own units."""

    def __init__(
        self,
        *columns: str | ProgressColumn,
        transient: bool = True,
        line_every_s: float | None = None,
    ) -> None:
        self.console = Console(stderr=True, soft_wrap=True)
        self._bar = Progress(
            *columns,
            TimeRemainingColumn(),
            console=self.console,
            transient=transient,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._line_every_s = LINE_EVERY_S if line_every_s is None else line_every_s
        self._started = self._printed = time.monotonic()

    def restart(self, **fields: Any) -> None:  # noqa: ANN401 - of the columns
        """Begin another piece of work: its time counts from now."""
        self._started = self._printed = time.monotonic()
        self._bar.reset(self._task, **fields)

    def elapsed_s(self) -> float:
        """Return the seconds that this piece of work has taken, which are never none."""
        return max(time.monotonic() - self._started, 1e-9)

    def left_s(self, share: float) -> float:
        """Return the seconds that are left once a share of the work, above 0, is done."""
        return self.elapsed_s() * (1 / share - 1)

    def update(
        self,
        line: Callable[[], str] | None = None,
        **fields: Any,  # noqa: ANN401 - of the columns
    ) -> None:
        """Move the bar; where there is none, print the line, if the last one was long ago."""
        self._bar.update(self._task, **fields)
        if line is None or self.console.is_terminal:
            return
        now = time.monotonic()
        if now - self._printed >= self._line_every_s:
            self._printed = now
            self.console.print(line(), markup=False)

    def start(self) -> None:
        """Show the bar."""
        self._bar.start()

    def stop(self) -> None:
        """Leave the screen to the result."""
        self._bar.stop()

    @contextmanager
    def shown(self) -> Iterator[Self]:
        """Show the bar as long as this block lasts."""
        with self._bar:
            yield self


def _by_share(rate: str) -> tuple[str | ProgressColumn, ...]:
    """Make columns of a bar that shows a share of the work, and a rate in its own unit."""
    return "{task.description}", BarColumn(), f"{{task.percentage:3.0f}}%  {rate}  left"


class SampleProgress:
    """Turns counts of samples, heard from any thread, into rate and time left.

    Where nobody knows how many there are, the share of the work that is done may be told instead.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self._lock, self._done = threading.Lock(), 0
        self.display = Display(*_by_share("{task.fields[rate]:,.0f} samples/s"))
        self._begin(what, total)

    def add(self, samples: int, share: float | None = None) -> None:
        """Count so many more, and perhaps hear which share of all work is done by now."""
        with self._lock:
            self._done += samples
            if self._total:
                share = self._done / self._total
            rate = self._done / self.display.elapsed_s()
            self.display.update(lambda: self._line(rate, share), completed=share or 0.0, rate=rate)

    def phase(self, what: str) -> Callable[[int, int], None]:
        """Return what hears how much of another work is done, of how much; it begins when heard."""

        def reach(done: int, total: int) -> None:
            if self._what != what:
                with self._lock:
                    self._begin(what, total)
            self.add(done - self._done)

        return reach

    def _begin(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        self.display.restart(description=what, total=1.0, rate=0.0)

    def _line(self, rate: float, share: float | None) -> str:
        of = f"{self._done} of " if self._total is not None else ""
        samples = number_of(self._done if self._total is None else self._total, "sample")
        line = f"{self._what}: {of}{samples}, {rate:,.0f} samples/s"
        return f"{line}, {self.display.left_s(share):.0f} s left" if share else line


@contextmanager
def watch_samples(what: str, total: int | None) -> Iterator[SampleProgress]:
    """Show how many samples are done."""
    progress = SampleProgress(what, total)
    with progress.display.shown():
        yield progress


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


class RunProgress:
    """Shows a cleaning on the terminal, and tells `also` the share that is done and a line."""

    def __init__(self, also: Callable[[float, str], None] = lambda *_: None) -> None:
        columns = _by_share("{task.fields[rate]:.1f} images/s")
        self._display = Display(*columns, transient=False)
        self._display.update(description="starting workers", rate=0.0)
        self._progress = CleanProgress(also)

    def begin(self, job: "CleanJob") -> None:
        """Print what is to be done, and show the bar."""
        self._progress.begin(job)
        shards, done = len(job.pending), len(job.mine) - len(job.pending)
        line = f"{job.run.store.url()}: {number_of(shards, 'shard')} to clean, {done} done"
        self._display.console.print(line, markup=False)
        self._display.start()
        self._display.restart(total=self._progress.total_bytes)

    def under_way(self, samples: int, size_bytes: int) -> None:
        """Add what is read of shards that are begun, but not yet done."""
        self._progress.under_way(samples, size_bytes)
        self._update()

    def ended(self, result: "ShardResult") -> None:
        """Count a shard that is committed; say why another one is put aside, or failed."""
        if not isinstance(result, ShardDone):
            how = "failed" if isinstance(result, ShardFailed) else "is put aside"
            line = f"shard {result.shard.shard} {how}: {result.why}"
            self._display.console.print(line, markup=False)
            return
        self._progress.ended(result)
        self._update()

    def stopped(self) -> None:
        """Say where a run stands that is stopped by a signal."""
        self._display.stop()
        committed, shards = self._progress.committed
        self._display.console.print(
            f"{committed} of {number_of(shards, 'shard')} committed; the same command goes on"
        )

    @contextmanager
    def shown(self) -> Iterator[Self]:
        """Leave the screen to the result behind this block; say it where it is broken off."""
        try:
            yield self
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
            self.stopped()
            raise
        finally:
            self._display.stop()

    def _update(self) -> None:
        progress = self._progress
        self._display.update(
            progress.line,
            completed=progress.read_bytes,
            rate=progress.rate,
            description=progress.shards_done,
        )


@contextmanager
def watch_shards(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show shards done, on a terminal alone: it is soon over."""
    with Display(BarColumn(), MofNCompleteColumn(), what).shown() as display:
        yield lambda done, total: display.update(completed=done, total=total)


@contextmanager
def watch_training(
    steps: int, also: Callable[[float, str], None] = lambda *_: None
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show a training of so many steps: a line for each line of its numbers, or the bar.

    What is yielded is first called with the `step` that the training goes on from; `also` is told
    the share that is done and a line.
    """
    columns = ("{task.description}", BarColumn(None), "{task.completed:.0f}/{task.total:.0f}  left")
    display = Display(*columns, transient=False, line_every_s=0)
    step = None

    def show(line: Mapping[str, Any]) -> None:
        nonlocal step
        begun, step = step is not None, line["step"]
        if not begun:
            display.restart(description="training", total=steps, completed=line["step"])
            display.start()
            return
        display.update(
            lambda: training_line(line, steps),
            completed=line["step"],
            description=training_numbers(line),
        )
        also(line["step"] / steps, training_line(line, steps))

    try:
        yield show
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
        display.stop()
        where = "nothing is trained yet" if step is None else f"step {step} of {steps}"
        display.console.print(f"{where}; the same command goes on from what was saved last")
        raise
    finally:
        display.stop()
