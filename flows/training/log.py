"""What a training says while it runs: read from its file of numbers, wherever the workers are."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from flows.training.trackers import open_trackers
from flows.training.worker import TrainingJob

POLL_S = 0.5

Display = Callable[[Mapping[str, Any]], None]
"""Shows a training: is called with the `step` that it goes on from, then with each new line of
`metrics.jsonl`, from another thread."""

OpenDisplay = Callable[[int], AbstractContextManager[Display]]
"""Opens the display of a training of so many steps."""


@contextmanager
def silent(_: int) -> Iterator[Display]:
    """Show nothing."""
    yield lambda _: None


@contextmanager
def tail_metrics(job: TrainingJob, display: Display) -> Iterator[None]:
    """Hand a training's numbers to a display, and to its trackers."""
    recipe = job.recipe
    config = recipe.model_dump(mode="json")
    trackers = open_trackers(recipe.trackers, job.folder / "trackers", job.folder.name, config)
    with closing(trackers) as tracker:

        def tell(line: Mapping[str, Any]) -> None:
            numbers = {name: float(value) for name, value in line.items() if name != "step"}
            tracker.log(line["step"], numbers)
            display(line)

        tail = _Tail(job.folder / "metrics.jsonl", tell)
        display({"step": tail.seen})
        tail.start()
        try:
            yield
        finally:
            tail.stop()


class _Tail(threading.Thread):
    """Reads lines as they are added to a file; those that were there before are passed over."""

    def __init__(self, path: Path, tell: Display) -> None:
        super().__init__(name="metrics", daemon=True)
        self._path, self._tell = path, tell
        self._ended = threading.Event()
        self.seen = max((line["step"] for line in _lines(path)), default=0)

    def run(self) -> None:
        """Look at the file now and then."""
        while not self._ended.wait(POLL_S):
            self._look()
        self._look()

    def stop(self) -> None:
        """Look a last time."""
        self._ended.set()
        self.join()

    def _look(self) -> None:
        for line in _lines(self._path):
            if line["step"] > self.seen:
                self.seen = line["step"]
                self._tell(line)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a file that may be growing."""
    if not path.is_file():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
