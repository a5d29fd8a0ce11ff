"""Downloading as a job of an engine: img2dataset is started once, then does part after part."""

import logging
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass

from flows.engines.engine import is_shard_fault
from flows.engines.job import Grant
from pipeline.download.environment import find_python
from pipeline.download.fetcher.process import Fetcher, FetcherLost, FetcherOptions
from pipeline.download.part import Outage, PartTask, do_part
from shards.download.record import Download, DownloadCounts, PartCommit, newest_commits
from shards.run.attempt import Ending
from shards.store import Store

TRIES = 3  # of a part whose process dies

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part that is committed: what became of its rows, those of earlier tries too."""

    task: PartTask
    counts: DownloadCounts
    asked: int  # rows of this attempt
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PartFailed:
    """A part that stays pending, and why; an outage is no fault of its own."""

    task: PartTask
    why: str
    outage: bool = False


PartResult = PartDone | PartFailed


@dataclass(frozen=True, slots=True)
class DownloadSpec:
    """All that a worker needs to know, small enough to send anywhere.

    `python` is the one that has img2dataset, if the user names one; else each machine has its own.
    """

    url: str
    options: FetcherOptions
    python: str | None = None
    outage_is_news: bool = True

    def open(self, grant: Grant) -> "DownloadWorker":
        """Find img2dataset on the machine where it works."""
        return DownloadWorker(self, grant)


class DownloadWorker:
    """Does parts of one download; `counts` may be read from another thread meanwhile."""

    device = "cpu"

    def __init__(self, spec: DownloadSpec, grant: Grant) -> None:
        self.counts = (0, 0)  # addresses done of the part under way; their bytes are not told
        self.samples = 0  # addresses done since it was opened
        self.reasons: Mapping[str, int] = {}  # of the part under way
        self.name = grant.worker or platform.node()
        self._spec = spec
        self._download = Download.open(Store(spec.url))
        python = find_python(spec.python)
        self._options = FetcherOptions(
            python, spec.options.bounds, spec.options.threads, spec.options.allow_private
        )
        self._fetcher: Fetcher | None = None

    @property
    def pid(self) -> int | None:
        """img2dataset's process, once there is one."""
        return self._fetcher.pid if self._fetcher is not None else None

    def expect(self, task: PartTask | None) -> None:
        """Hear which part is next; nothing is begun ahead."""

    def process(self, task: PartTask) -> PartResult:
        """Do one part and commit it; raises what is no single part's fault."""
        begun = time.monotonic()
        try:
            done = self._try(task)
        except Outage as error:
            return PartFailed(task, str(error), outage=True)
        except FetcherLost as error:
            return PartFailed(task, str(error))
        except OSError as error:
            if not is_shard_fault(error):
                raise
            return PartFailed(task, str(error))
        finally:
            self.counts, self.reasons = (0, 0), {}
        before = task.before.worth_a_retry if task.before else done.counts.rows
        return PartDone(task, done.counts, before, round(time.monotonic() - begun, 3))

    def close(self) -> None:
        """End img2dataset's process."""
        fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            fetcher.close()

    def _try(self, task: PartTask) -> PartCommit:
        """Do a part; where img2dataset's process dies, another one is started."""
        for _ in range(TRIES - 1):
            try:
                return self._do(task)
            except FetcherLost as error:
                _log.warning("part %s is begun again: %s", task.shard, error)
                self.close()
        return self._do(task)

    def _do(self, task: PartTask) -> PartCommit:
        if self._fetcher is None:
            self._fetcher = Fetcher(self._options)
        news = self._spec.outage_is_news
        return do_part(self._download, task, self._fetcher, self._hear, news)

    def _hear(self, reasons: Mapping[str, int]) -> None:
        done = sum(reasons.values())
        self.samples += done - self.counts[0]
        self.counts, self.reasons = (done, 0), reasons


@dataclass(frozen=True, slots=True)
class DownloadRecords:
    """What the driver of a download knows of its parts; attempts leave no record of their own."""

    download: Download

    def ended(self, task: PartTask, worker: str, ending: Ending, why: str = "") -> None:
        """Do nothing: what no commit names did not happen."""

    def look_up(self, task: PartTask) -> PartResult | None:
        """Return what a part came to, if it is committed by now."""
        done = newest_commits(self.download).get(task.part)
        retry = task.before.retry + 1 if task.before else 0
        if done is None or done.retry < retry:
            return None
        return PartDone(task, done.counts, 0)

    def failed(self, task: PartTask, why: str) -> PartResult:
        """Make the result of a part that stays pending."""
        return PartFailed(task, why)

    def samples(self, result: PartResult) -> int:
        """Count the rows of a part that is done."""
        return result.counts.rows if isinstance(result, PartDone) else 0
