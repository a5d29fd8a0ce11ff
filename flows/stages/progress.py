"""How far a cleaning or a training is: its share, its rate and the time left, as one line."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flows.engines.download_worker import PartDone, PartResult
from flows.engines.engine import ShardDone, ShardResult
from flows.rounds.names import Stage
from pipeline.printable import count, number_of, percent, tally

if TYPE_CHECKING:
    from flows.stages.clean import CleanJob
    from flows.stages.download import DownloadJob

TRAINING_NUMBERS = ("loss", "itc", "itm", "lm", "answers", "accuracy", "temperature")


class CleanProgress:
    """Counts what a cleaning reports; bytes of the input tell how much is left.

    `show` is given the share that is done and a line, as often as there is news.
    """

    def __init__(self, show: Callable[[float, str], None]) -> None:
        self._show = show
        self.shards = self.ended_shards = self._before = self.total_bytes = self.samples = (
            self.read_bytes
        ) = 0
        self._done_bytes = self._done_samples = 0
        self._under_way = 0, 0  # samples and bytes, as last heard
        self._began = time.monotonic()

    @property
    def rate(self) -> float:
        """Images per second, since it began."""
        return self.samples / max(time.monotonic() - self._began, 1e-9)

    @property
    def committed(self) -> tuple[int, int]:
        """How many shards are committed, those of earlier commands too, and of how many."""
        return self._before + self.ended_shards, self._before + self.shards

    @property
    def shards_done(self) -> str:
        """How many shards are done, of how many."""
        return f"{self.ended_shards}/{number_of(self.shards, 'shard')}"

    def line(self) -> str:
        """Write how far it is."""
        share = self.read_bytes / max(self.total_bytes, 1)
        left = "starting workers"
        if share:
            left = f"{(time.monotonic() - self._began) * (1 / share - 1):.0f} s left"
        samples = number_of(self.samples, "sample")
        return f"{self.shards_done}, {samples}, {self.rate:.1f} images/s, {left}"

    def begin(self, job: "CleanJob") -> None:
        """Hear what is to be done."""
        self.shards = len(job.pending)
        self._before = len(job.mine) - self.shards
        self.total_bytes = sum(shard.size_bytes for shard in job.pending)
        self._began = time.monotonic()
        self._tell()

    def under_way(self, samples: int, size_bytes: int) -> None:
        """Add what is read of shards that are begun, but not yet done."""
        self._under_way = samples, size_bytes
        self.samples = self._done_samples + samples
        self.read_bytes = self._done_bytes + size_bytes
        self._tell()

    def ended(self, result: ShardResult) -> None:
        """Count a shard that is committed."""
        if not isinstance(result, ShardDone):
            return
        self.ended_shards += 1
        self._done_bytes += result.shard.size_bytes
        self._done_samples += result.counts.samples_in
        samples, size_bytes = self._under_way  # of others, too
        left = samples - result.counts.samples_in, size_bytes - result.shard.size_bytes
        self.under_way(max(left[0], 0), max(left[1], 0))

    def _tell(self) -> None:
        self._show(self.read_bytes / max(self.total_bytes, 1), self.line())


class DownloadProgress:
    """Counts what a download reports; `show` is given the share that is done and a line."""

    def __init__(self, show: Callable[[float, str], None]) -> None:
        self._show, self.total, self.parts = show, 0, ""
        self._before: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._ended = self._tasks = self._done = 0
        self._under_way = 0
        self._began = time.monotonic()

    def begin(self, job: "DownloadJob") -> None:
        """Hear what is to be done."""
        self.total, self._tasks = job.rows, len(job.tasks)
        self._began = time.monotonic()

    def under_way(self, reasons: Mapping[str, int]) -> None:
        """Hear of rows of parts that are begun."""
        self._under_way = sum(reasons.values())
        self.reasons = self._before + Counter(reasons)
        self._show(self.share, self.line())

    def ended(self, result: PartResult) -> None:
        """Count a part that is done."""
        if isinstance(result, PartDone):
            self._ended += 1
            self._done += result.asked
            counts = result.counts
            self._before += Counter(counts.failed_by_reason) + Counter(ok=counts.ok)
        self._under_way = 0
        self.under_way({})

    @property
    def asked(self) -> int:
        """Count the rows of this command that have ended."""
        return min(self._done + self._under_way, self.total)

    @property
    def share(self) -> float:
        """Say which share of this command's rows has ended."""
        return self.asked / self.total if self.total else 1.0

    @property
    def rate(self) -> float:
        """Rows per second since it began."""
        return self.asked / max(time.monotonic() - self._began, 1e-9)

    def line(self) -> str:
        """Write how far it is, and the failures by reason."""
        left = (self.total - self.asked) / self.rate if self.asked else 0
        line = f"{count(self.asked)} of {number_of(self.total, 'row')}, {self.rate:,.0f}/s"
        line += f", {left:,.0f} s left" if self.asked else ", starting img2dataset"
        return f"{line}; {tally(self.reasons)}" if self.reasons else line


def training_numbers(line: Mapping[str, Any]) -> str:
    """Write the numbers of a training that people watch."""
    return "  ".join(f"{name} {line[name]:.3f}" for name in TRAINING_NUMBERS if name in line)


def training_line(line: Mapping[str, Any], steps: int) -> str:
    """Write how far a training of so many steps is."""
    speed = line["samples_per_s"]
    left = (steps - line["step"]) * line["samples"] / line["step"]
    step = f"step {line['step']} of {steps}"
    numbers = training_numbers(line)
    return f"{step}: {numbers}, {speed:,.0f} samples/s, {left / max(speed, 1e-9):.0f} s left"


def stage_line(stage: Stage, entry: Mapping[str, Any]) -> str:
    """Write in one line what a stage came to."""
    if stage == "clean":
        texts = ", ".join(
            f"{origin} {percent(counts['kept'], counts['in'])}"
            for origin, counts in entry["texts"].items()
        )
        samples = number_of(entry["samples_in"], "sample")
        return f"{entry['kept']:,} of {samples} kept; texts kept: {texts}"
    if stage == "evaluate":
        itm, cider = entry["retrieval"]["itm"], entry["captions"]["cider"]
        return f"TR@1 {itm['tr@1']:.3f}, IR@1 {itm['ir@1']:.3f}, CIDEr {number(cider)}"
    loss = entry["last_numbers"].get("loss")
    done = f"{number_of(entry['steps'], 'step')}, {number_of(entry['samples'], 'sample')}"
    return done if loss is None else f"{done}, loss {number(loss)}"  # too short for a line of it


def number(value: float | None) -> str:
    """Write a measure, or that there is none."""
    return "none" if value is None else f"{value:.3f}"
