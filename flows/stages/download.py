"""The occasion of a download, in three stages: prepare the list, do its parts, finish.

The stages are plain functions; nothing here knows Prefect. What is committed is the only record of
what is done, so each may be done again.
"""

import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flows.engines.address import check_output
from flows.engines.download_worker import (
    DownloadRecords,
    DownloadSpec,
    DownloadWorker,
    PartFailed,
    PartResult,
)
from flows.engines.job import Grant
from flows.engines.start_checks import Demands
from flows.lock import lock_folder
from flows.stages.download_request import DownloadRequest
from pipeline.download.environment import find_python
from pipeline.download.part import PartTask, pending_tasks
from pipeline.download.prepare import prepare_download
from pipeline.printable import number_of
from shards.download.record import Download, DownloadCounts, newest_commits, sweep
from shards.store import Store

TOLD_EVERY_S = 0.5
WORKER_BYTES = 1_000_000_000  # of a worker: pictures on their way


@dataclass(frozen=True, slots=True)
class DownloadJob:
    """A prepared download: what is to be done, and what is done already."""

    download: Download
    request: DownloadRequest
    spec: DownloadSpec
    tasks: tuple[PartTask, ...]
    notes: tuple[str, ...]  # what was guessed of the list

    @property
    def rows(self) -> int:
        """Count the rows that this command will ask for."""
        sizes = {part.shard: part.rows for part in self.download.parts}
        return sum(t.before.worth_a_retry if t.before else sizes[t.part] for t in self.tasks)


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """What a download came to; the exit code follows the commits."""

    url: str
    statistics: dict[str, Any]
    failures: tuple[PartFailed, ...]

    @property
    def exit_code(self) -> int:
        """0 where every row has its outcome, 1 where parts are left."""
        return 1 if self.statistics["parts"]["pending"] or self.failures else 0

    @property
    def left(self) -> str:
        """What is left, why, and what to do."""
        pending = self.statistics["parts"]["pending"]
        first = self.failures[0] if self.failures else None
        if first and first.outage:
            return (
                f"{number_of(pending, 'part')} not done: an outage, by its looks, of which nothing "
                f"is recorded: {first.why}. Run the same command again when the network is back; "
                "or, if these hosts are gone for good, with --record-outage"
            )
        why = f"; {first.task.shard}: {first.why}" if first else ""
        return f"{number_of(pending, 'part')} not done{why}. Run the same command again to go on"


class DownloadListener(Protocol):
    """Follows the progress of a download."""

    def begin(self, job: DownloadJob) -> None:
        """Begin to follow; the job says what is to be done."""

    def under_way(self, reasons: Mapping[str, int]) -> None:
        """Hear how many rows of parts that are begun have ended, by `ok` or their reasons."""

    def ended(self, result: PartResult) -> None:
        """Note that a part is committed, or failed."""


@contextmanager
def alone_in(output: str) -> Iterator[None]:
    """Hold a local folder, so that no other download works there, and mend what a kill has left."""
    check_output(output)
    store = Store(output)
    if not store.is_local:  # commits alone decide there, as they must where there are no locks
        yield
        return
    with lock_folder(Path(store.path("record"))):
        if store.exists("record/download.json"):
            sweep(Download.open(store))
        yield


def prepare(request: DownloadRequest) -> DownloadJob:
    """Check what can be checked before work starts, and divide the list, if it is not yet."""
    if request.engine == "local":
        find_python(request.img2dataset)
    store = Store(request.output)
    notes: list[str] = []
    download = prepare_download(store, request.list, notes.append)
    commits = newest_commits(download)
    tasks = tuple(pending_tasks([p.shard for p in download.parts], commits, request.retry))
    spec = DownloadSpec(
        store.url(), request.options, request.img2dataset, not request.record_outage
    )
    return DownloadJob(download, request, spec, tasks, tuple(notes))


def do_parts(job: DownloadJob, watch: DownloadListener) -> tuple[PartFailed, ...]:
    """Do all pending parts; after an outage no more are begun. Return those that failed."""
    watch.begin(job)
    failures = []
    if job.tasks:
        run = _on_ray if job.request.engine == "ray" else _here
        for result in run(job, watch):
            watch.ended(result)
            if isinstance(result, PartFailed):
                failures.append(result)
                if result.outage:
                    break
    return tuple(failures)


def finish(job: DownloadJob, failures: Sequence[PartFailed] = ()) -> DownloadResult:
    """Count the download from its commits."""
    download = job.download
    statistics = download_statistics(download)
    return DownloadResult(download.store.url(), statistics, tuple(failures))


def download_statistics(download: Download) -> dict[str, Any]:
    """Count what became of the rows of a list, from the commits alone."""
    commits = newest_commits(download)
    counts = sum((c.counts for c in commits.values()), DownloadCounts())
    total = sum(part.rows for part in download.parts)
    return {
        "rows": total,
        "ok": counts.ok,
        "failed": counts.failed,
        "failed_by_reason": counts.failed_by_reason,
        "pending": total - counts.rows,
        "worth_a_retry": sum(c.worth_a_retry for c in commits.values()),
        "bytes": counts.size_bytes,
        "parts": {
            "total": len(download.parts),
            "done": len(commits),
            "pending": len(download.parts) - len(commits),
        },
        "tars": sorted(tar for c in commits.values() for tar in c.tars),
        "columns": download.identity["columns"],
    }


def _here(job: DownloadJob, watch: DownloadListener) -> Iterator[PartResult]:
    """Do the parts on this machine: as many workers as its processors, or as are asked for."""
    count = job.request.workers or len(os.sched_getaffinity(0))
    workers = [DownloadWorker(job.spec, Grant()) for _ in range(min(count, len(job.tasks)))]
    waiting = queue.SimpleQueue[PartTask]()
    for task in job.tasks:
        waiting.put(task)
    results = queue.SimpleQueue[PartResult | BaseException]()
    threads = [
        threading.Thread(target=_work, args=(worker, waiting, results), daemon=True)
        for worker in workers
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in job.tasks:
            yield _next(results, workers, watch)
    finally:
        for worker in workers:
            worker.close()  # what is under way fails, and no commit comes of it


def _work(
    worker: DownloadWorker,
    waiting: "queue.SimpleQueue[PartTask]",
    results: "queue.SimpleQueue[PartResult | BaseException]",
) -> None:
    while True:
        try:
            results.put(worker.process(waiting.get_nowait()))
        except queue.Empty:
            return
        except BaseException as error:
            results.put(error)
            return


def _next(
    results: "queue.SimpleQueue[PartResult | BaseException]",
    workers: Sequence[DownloadWorker],
    watch: DownloadListener,
) -> PartResult:
    """Wait for the next part to end, and tell how far the others are meanwhile."""
    while True:
        try:
            result = results.get(timeout=TOLD_EVERY_S)
        except queue.Empty:
            reasons: dict[str, int] = {}
            for worker in workers:
                for reason, count in worker.reasons.items():
                    reasons[reason] = reasons.get(reason, 0) + count
            watch.under_way(reasons)
            continue
        if isinstance(result, BaseException):
            raise result
        return result


class _CountsOnly:
    """Hears a pool's counts; reasons come with each part that is done."""

    def __init__(self, watch: DownloadListener) -> None:
        self._watch = watch

    def under_way(self, samples: int, size_bytes: int) -> None:  # noqa: ARG002 - not told
        """Pass on how many rows have ended."""
        self._watch.under_way({"asked": samples})


def _on_ray(job: DownloadJob, watch: DownloadListener) -> Iterator[PartResult]:
    from flows.engines.ray.pool import ray_pool  # seconds to import

    demands = Demands(run_url=job.spec.url, inputs=(), worker_bytes=WORKER_BYTES)
    records = DownloadRecords(job.download)
    with ray_pool(job.spec, records, demands, job.request.engine_config) as pool:
        yield from pool.run(job.tasks, _CountsOnly(watch))
