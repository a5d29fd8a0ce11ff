"""A download on the terminal: how far it is, and what became of the addresses."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn
from rich.table import Column, Table

from flows.cli.display.progress import Display
from flows.engines.download_worker import PartDone, PartResult
from flows.stages.progress import DownloadProgress
from pipeline.printable import count, number_of, percent, size, visible

if TYPE_CHECKING:
    from flows.stages.download import DownloadJob, DownloadResult


class ShownDownload:
    """Shows that on the terminal, and tells `also`."""

    def __init__(self, also: Callable[[float, str], None] = lambda *_: None) -> None:
        columns = ("{task.description}", BarColumn(), "{task.percentage:3.0f}%  left")
        self._display, self._also = Display(*columns, transient=False), also
        self._progress = DownloadProgress(self._update)

    def begin(self, job: "DownloadJob") -> None:
        """Print what is to be done, and show the bar."""
        self._progress.begin(job)
        for note in job.notes:
            self._display.console.print(visible(note), markup=False)
        done = len(job.download.parts) - len(job.tasks)
        line = f"{job.spec.url}: {number_of(job.rows, 'row')} to ask for"
        line += f", in {number_of(len(job.tasks), 'part')}; {done} done"
        self._display.console.print(line, markup=False)
        if job.tasks:
            self._display.start()
        self._display.restart(total=1.0, description="starting img2dataset")

    def under_way(self, reasons: Mapping[str, int]) -> None:
        """Show how far it is."""
        self._progress.under_way(reasons)

    def ended(self, result: PartResult) -> None:
        """Count a part that is done; say why one failed."""
        self._progress.ended(result)
        if not isinstance(result, PartDone):
            line = f"part {result.task.shard} failed: {result.why}"
            self._display.console.print(line, markup=False)

    @contextmanager
    def shown(self) -> Iterator[Self]:
        """Leave the screen to the result behind this block."""
        try:
            yield self
        except (KeyboardInterrupt, SystemExit):
            self._display.stop()
            self._display.console.print("what is committed is kept; the same command goes on")
            raise
        finally:
            self._display.stop()

    def _update(self, share: float, line: str) -> None:
        self._display.update(lambda: line, completed=share, description=line)
        self._also(share, line)


def print_download(result: "DownloadResult") -> None:
    """Print what became of the rows of a list."""
    statistics, console = result.statistics, Console()
    console.print(_table(statistics))
    tars = statistics["tars"]
    parts = statistics["parts"]
    console.print(
        f"parts: {count(parts['done'])} done, {count(parts['pending'])} pending; "
        f"{number_of(len(tars), 'tar')}, {size(statistics['bytes'])} of pictures"
    )
    if retry := statistics["worth_a_retry"]:
        console.print(f"{number_of(retry, 'row')} may go better another time: add --retry")
    if blocked := statistics["failed_by_reason"].get("blocked_address"):
        console.print(
            f"{number_of(blocked, 'row')} lead to addresses that are not public. If they are "
            "yours: --allow-private-addresses, into another folder"
        )
    console.print(f"output: {result.url}", markup=False, soft_wrap=True)
    if tars and not parts["pending"]:
        line = f"to clean it: capfilt clean --input {result.url} --output RUN"
        console.print(line, markup=False, soft_wrap=True)


def _table(statistics: Mapping[str, Any]) -> Table:
    table = Table("addresses", Column("", justify="right"), Column("share", justify="right"))
    total, reasons = statistics["rows"], statistics["failed_by_reason"]
    rows = [(name, statistics[name]) for name in ("rows", "ok", "failed")]
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    rows += [(f"  {reason}", number) for reason, number in ordered]
    if statistics["pending"]:
        rows.append(("pending", statistics["pending"]))
    for name, number in rows:
        table.add_row(name, count(number), percent(number, total))
    return table
