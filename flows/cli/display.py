"""What people see of a run: progress on a terminal, plain lines elsewhere, a table at the end."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from flows.cli.faults import exit_code_of
from flows.engines.engine import ShardDone, ShardFailed, ShardResult
from pipeline.printable import count, percent, visible

if TYPE_CHECKING:
    from flows.stages.clean import CleanJob, RunResult  # which loads the models' room

LINE_EVERY_S = 10.0
REASONS_SHOWN = 5


class RunProgress:
    """Turns counts into rate and time left; bytes of the input tell how much is left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%  {task.fields[rate]:.1f} images/s  left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._started = self._said_at = time.monotonic()
        self._total_bytes = self._done_bytes = self._done_samples = 0
        self._shards, self._ended = 0, 0
        self._task = self._bar.add_task("loading models", total=None, rate=0.0)

    def begin(self, job: "CleanJob") -> None:
        """Hear what is to be done."""
        self._shards = len(job.pending)
        self._total_bytes = sum(shard.size_bytes for shard in job.pending)
        done = len(job.mine) - len(job.pending)
        self._console.print(f"{job.run.store.url()}: {self._shards} shards to clean, {done} done")
        self._started = self._said_at = time.monotonic()
        self._bar.start()
        self._bar.update(self._task, total=self._total_bytes)

    def under_way(self, samples: int, size_bytes: int) -> None:
        """Hear of shards that are begun, but not yet done."""
        all_samples = self._done_samples + samples
        now = time.monotonic()
        rate = all_samples / max(now - self._started, 1e-9)
        done = f"{self._ended}/{self._shards} shards"
        share = self._done_bytes + size_bytes
        self._bar.update(self._task, completed=share, rate=rate, description=done)
        if not self._console.is_terminal and now - self._said_at >= LINE_EVERY_S:
            self._said_at = now
            left = (now - self._started) * (self._total_bytes / max(share, 1) - 1)
            eta = f"{left:.0f} s left" if share else "loading models"
            self._console.print(f"{done}, {all_samples} samples, {rate:.1f} images/s, {eta}")

    def ended(self, result: ShardResult) -> None:
        """Hear that a shard is committed, put aside, or failed."""
        if not isinstance(result, ShardDone):
            how = "failed" if isinstance(result, ShardFailed) else "is put aside"
            self._console.print(f"shard {result.shard.shard} {how}: {result.why}", markup=False)
            return
        self._ended += 1
        self._done_bytes += result.shard.size_bytes
        self._done_samples += result.counts.samples_in
        self.under_way(0, 0)

    def close(self) -> None:
        """Leave the screen to the result."""
        self._bar.stop()


@contextmanager
def watch() -> Iterator[RunProgress]:
    """Show progress on standard error, so that standard output holds the result alone."""
    progress = RunProgress(Console(stderr=True, soft_wrap=True))
    try:
        yield progress
    finally:
        progress.close()


def conclude(result: "RunResult | BaseException", as_json: bool) -> int:
    """Print what a run came to; give its exit code."""
    if isinstance(result, BaseException):
        if not isinstance(result, Exception):
            raise result
        return exit_code_of(result)
    if as_json:
        print(json.dumps(result.statistics | {"run": result.run_url}))
    else:
        print_statistics(result.run_url, result.statistics)
    if result.pending_here:
        first = result.failures[0] if result.failures else None
        why = f"; {first.shard.shard}: {first.why}" if first else ""
        print(
            f"capfilt: {result.pending_here} shards are still pending{why}. Run the same command "
            "again to take them up",
            file=sys.stderr,
        )
    return result.exit_code


def print_statistics(run_url: str, statistics: dict[str, Any]) -> None:
    """Print a run's numbers as tables that fit 80 columns."""
    console = Console()
    console.print(_sample_table(statistics))
    console.print(_text_table(statistics))
    shards = statistics["shards"]
    counted = ", ".join(f"{count(number)} {name}" for name, number in shards.items() if number)
    console.print(f"shards: {counted}")
    console.print(f"output: {run_url}", markup=False, soft_wrap=True)


def _sample_table(statistics: dict[str, Any]) -> Table:
    table = Table("samples", Column("", justify="right"), Column("share", justify="right"))
    total = statistics["samples_in"]
    reasons = sorted(statistics["rejected_by_reason"].items(), key=lambda item: -item[1])
    rows = [(name, statistics[name]) for name in ("samples_in", "kept", "filtered", "rejected")]
    rows += [(f"  {reason}", number) for reason, number in reasons[:REASONS_SHOWN]]
    for name, number in rows:
        table.add_row(name, count(number), percent(number, total))
    return table


def _text_table(statistics: dict[str, Any]) -> Table:
    numbers = (Column(name, justify="right") for name in ("in", "kept", "share"))
    table = Table("texts", *numbers)
    for origin, texts in statistics["texts"].items():
        given, kept = texts["in"], texts["kept"]
        name = Text(visible(origin))  # as Text: an origin's name may look like markup
        table.add_row(name, count(given), count(kept), percent(kept, given))
    return table
