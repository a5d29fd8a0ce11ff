"""How far a training is: a bar on a terminal, elsewhere a line for each line of its numbers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SHOWN = ("loss", "itc", "itm", "lm", "answers", "accuracy", "temperature")


@contextmanager
def watch_training(steps: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show a training of so many steps on standard error, from its first call on."""
    console = Console(stderr=True, soft_wrap=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:.0f}/{task.total:.0f}  left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task: TaskID | None = None

    def show(line: Mapping[str, Any]) -> None:
        nonlocal task
        if task is None:  # where it goes on from; its speed counts from there
            task = bar.add_task("training", total=steps, completed=line["step"])
            bar.start()
            return
        shown = "  ".join(f"{name} {line[name]:.3f}" for name in SHOWN if name in line)
        bar.update(task, completed=line["step"], description=shown)
        if not console.is_terminal:
            console.print(_line(line, steps, shown), highlight=False)

    try:
        yield show
    finally:
        bar.stop()


def _line(line: Mapping[str, Any], steps: int, shown: str) -> str:
    pace = line["samples_per_s"]
    left = (steps - line["step"]) * line["samples"] / line["step"]
    left_s = left / max(pace, 1e-9)
    step = f"step {line['step']} of {steps}"
    return f"{step}: {shown}, {pace:,.0f} samples/s, {left_s:.0f} s left"
