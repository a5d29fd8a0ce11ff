"""What a training says while it runs: read from its file of numbers, wherever the workers are."""

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from flows.training.trackers import Tracker, open_trackers
from flows.training.worker import TrainingJob

POLL_S = 0.5
SHOWN = ("loss", "itc", "itm", "lm", "answers", "accuracy", "temperature")
_log = logging.getLogger(__name__)


@contextmanager
def tail_metrics(job: TrainingJob) -> Iterator[None]:
    """Show a training's numbers on standard error, and hand them to its trackers."""
    recipe = job.recipe
    config = recipe.model_dump(mode="json")
    tracker = open_trackers(recipe.trackers, job.folder / "trackers", job.folder.name, config)
    follower = _Follower(job.folder / "metrics.jsonl", job.steps, tracker)
    follower.start()
    try:
        yield
    finally:
        follower.stop()
        tracker.close()


class _Follower(threading.Thread):
    """Reads lines as they are added to a file; those that were there before are passed over."""

    def __init__(self, path: Path, steps: int, tracker: Tracker) -> None:
        super().__init__(name="follow", daemon=True)
        self._path, self._steps, self._tracker = path, steps, tracker
        self._ended = threading.Event()
        self._seen = max((line["step"] for line in _lines(path)), default=0)
        console = Console(stderr=True, soft_wrap=True)
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=steps, completed=self._seen)

    def run(self) -> None:
        """Look at the file now and then."""
        with self._bar:
            while not self._ended.wait(POLL_S):
                self._look()
            self._look()

    def stop(self) -> None:
        """Look a last time."""
        self._ended.set()
        self.join()

    def _look(self) -> None:
        for line in _lines(self._path):
            if line["step"] > self._seen:
                self._seen = line["step"]
                self._tell(line)

    def _tell(self, line: Mapping[str, Any]) -> None:
        numbers = {name: float(value) for name, value in line.items() if name != "step"}
        self._tracker.log(line["step"], numbers)
        shown = "  ".join(f"{name} {line[name]:.3f}" for name in SHOWN if name in line)
        pace = f"{line['samples_per_s']:,.0f} samples/s"
        self._bar.update(self._task, completed=line["step"], description=shown)
        if not self._console.is_terminal:
            left = (self._steps - line["step"]) * line["samples"] / line["step"]
            left_s = left / max(line["samples_per_s"], 1e-9)
            step = f"step {line['step']} of {self._steps}"
            self._console.print(f"{step}: {shown}, {pace}, {left_s:.0f} s left", highlight=False)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a file that may be growing."""
    if not path.is_file():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
