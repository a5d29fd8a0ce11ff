"""A plan on the terminal: what is wrong, what is left to do, and what it will take."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from flows.cli.display.progress import SampleProgress
from flows.engines.engine import ShardDone, ShardResult
from pipeline.clean.forecast import Interval
from pipeline.printable import number_of, percent, size, visible

if TYPE_CHECKING:
    from flows.stages.estimate.plan import Forecast, Plan
    from flows.stages.estimate.problems import Problem

Row = tuple[str, str, str]


class SamplingProgress:
    """Shows how far a sample is: by its pictures, or by its time, whichever is over first."""

    def __init__(self, samples: int, budget_s: float | None) -> None:
        self._samples, self._budget_s = samples, budget_s
        self._progress = SampleProgress("sampling", None)
        self._done = self._under_way = 0
        self._begun = False
        self.display = self._progress.display
        self.display.update(description="starting workers")

    def under_way(self, samples: int, size_bytes: int) -> None:  # noqa: ARG002 - a listener
        """Add what is done of small shards that are begun."""
        self._begin()
        self._under_way = samples
        self._progress.add(0, self._share)

    def ended(self, result: ShardResult) -> None:
        """Count a small shard."""
        self._begin()
        if isinstance(result, ShardDone):
            self._done += result.counts.samples_in
            self._progress.add(result.counts.samples_in, self._share)
            self._under_way = 0

    def _begin(self) -> None:
        """Leave the start of the workers out of rate and time."""
        if not self._begun:
            self._begun = True
            self.display.restart(description="sampling", total=1.0, rate=0.0)

    @property
    def _share(self) -> float:
        by_count = (self._done + self._under_way) / self._samples
        by_time = self.display.elapsed_s() / self._budget_s if self._budget_s else 0.0
        return min(max(by_count, by_time), 1.0)


def print_plan(plan: "Plan", price: float | None) -> None:
    """Print a plan: tables first, then what to mind."""
    console = Console()
    task, forecast = plan.task, plan.forecast
    if task is not None:
        done = len(task.shards) - len(task.pending)
        line = f"{len(task.pending):,} of {number_of(len(task.shards), 'shard')} to clean"
        if done:
            line += f"; {done:,} done, {number_of(task.samples_done, 'sample')}"
        console.print(line)
    if plan.sample is not None and forecast is not None:
        console.print(_table(_rows(forecast, price)))
        console.print(_basis(plan))
    print_problems(plan.problems)


def print_problems(problems: "Iterable[Problem]") -> None:
    """Print what stands in the way, and what only makes it worse."""
    console = Console()
    for problem in problems:
        kind = "warning" if problem.warning else "problem"
        console.print(f"{kind}: {problem.subject}: {visible(problem.message)}", markup=False)


def problems_as_json(problems: "Iterable[Problem]") -> dict[str, Any]:
    """Return what `print_problems` prints, for machines."""
    listed = [asdict(problem) for problem in problems]
    return {"ready": all(problem["warning"] for problem in listed), "problems": listed}


def plan_as_json(plan: "Plan", price: float | None) -> dict[str, Any]:
    """Return all that `print_plan` prints, for machines; times are in seconds."""
    known = problems_as_json(plan.problems)
    if plan.task is not None:
        shards, pending = len(plan.task.shards), len(plan.task.pending)
        known["shards"] = {"total": shards, "done": shards - pending, "pending": pending}
        known["samples_done"] = plan.task.samples_done
    if plan.sample is not None and plan.forecast is not None:
        known |= asdict(plan.forecast, dict_factory=_finite)
        cost = plan.forecast.gpu_hours.times(price) if price else None
        known["cost"] = cost and asdict(cost, dict_factory=_finite)
        known["sample"] = {
            "dtype": _dtype(plan),
            "images": sum(block.samples for block in plan.sample.blocks),
            "shards_timed": plan.sample.timed,
            "workers": [asdict(worker) for worker in plan.sample.workers],
        }
    return known


def _finite(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of fields; JSON has no number for a bound that is not known."""
    return {name: None if value == math.inf else value for name, value in fields}


def _table(rows: Iterator[Row]) -> Table:
    right = (Column(name, justify="right") for name in ("about", "90 % interval"))
    table = Table("", *right)
    for row in rows:
        table.add_row(*row)
    return table


def _rows(forecast: "Forecast", price: float | None) -> Iterator[Row]:
    yield _row("images", forecast.images, lambda value: f"{value:,.0f}")
    yield _row("time", forecast.seconds, duration)
    yield "  of it start and end", duration(forecast.start_seconds), ""
    rate = forecast.images.value / max(forecast.seconds.value - forecast.start_seconds, 1e-9)
    yield "  images/s", f"{rate:,.1f}", ""
    if forecast.gpu_hours.value:
        yield _row("GPU-hours", forecast.gpu_hours, lambda value: f"{value:,.2f}")
        if price:
            yield _row("cost", forecast.gpu_hours.times(price), lambda value: f"{value:,.2f}")
    elif price:
        yield "cost", "no GPU is used", ""
    for what, share in (("kept", forecast.kept), ("rejected", forecast.rejected)):
        yield _row(what, share, lambda value: percent(value, 1))
    for table, output in forecast.output_bytes.items():
        yield _row(f"output, {table}", output, lambda value: size(int(value)))


def _row(name: str, interval: Interval, shown: Any) -> Row:  # noqa: ANN401 - a number's form
    if interval.high == math.inf:
        return name, shown(interval.value), "not known"
    return name, shown(interval.value), f"{shown(interval.low)} to {shown(interval.high)}"


def _basis(plan: "Plan") -> str:
    sample, forecast = plan.sample, plan.forecast
    assert sample is not None
    assert forecast is not None
    images = sum(block.samples for block in sample.blocks)
    devices = sorted({f"{worker.device} of {worker.host}" for worker in sample.workers})
    workers = number_of(forecast.workers, "worker")
    return (
        f"from a sample of {number_of(images, 'image')} in "
        f"{number_of(len(sample.blocks), 'place')}, "
        f"by {workers} in {_dtype(plan)} ({', '.join(map(visible, devices))}), "
        f"each with {size(forecast.peak_memory_bytes)} of memory at most"
    )


def _dtype(plan: "Plan") -> Any:  # noqa: ANN401 - of an identity, which is JSON
    """Name the dtype of the models; `auto` is fixed by then."""
    assert plan.task is not None  # a sample is of one
    return plan.task.resolved.identity["dtype"]


def duration(seconds: float) -> str:
    """Write a time as people do: 3.2 h."""
    for unit, scale in (("days", 86_400 * 2), ("h", 7_200), ("min", 180)):
        if seconds >= scale:
            return f"{seconds / {'days': 86_400, 'h': 3_600, 'min': 60}[unit]:.1f} {unit}"
    return f"{seconds:.0f} s"
