"""A cleaning told to its run's log: how it begins, what each shard comes to, how it ends."""

import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from flows.engines.engine import (
    ProgressListener,
    ShardDone,
    ShardFailed,
    ShardQuarantined,
    ShardResult,
)
from flows.extras import missing_extra, versions_of
from flows.recipe import Recipe, ScreenRecipe
from flows.run_log.events import tell
from flows.run_log.log import ENDED, RunLog
from pipeline.printable import number_of
from shards.inputs.shard import InputShard
from shards.run.run import Run

LIBRARIES = ("torch", "transformers", "tokenizers", "pillow", "pyarrow", "ray", "prefect")
PROGRESS_EVERY_S = 60.0


class ResultListener(ProgressListener, Protocol):
    """Follows the progress of a run, and what each of its shards comes to."""

    def ended(self, result: ShardResult) -> None:
        """Note that a shard is committed, quarantined, or failed."""


class LoggedProgress:
    """Tells the log what another listener hears, now and then how far the work is."""

    def __init__(self, pending: Iterable[InputShard], listener: ResultListener) -> None:
        self._listener = listener
        sizes = [shard.size_bytes for shard in pending]
        self._shards, self._size_bytes = len(sizes), sum(sizes)
        self._ended = self._done_samples = self._done_bytes = 0
        self._begun = self._told = time.monotonic()

    def under_way(self, samples: int, size_bytes: int) -> None:
        """Pass on how far the work is; once a minute, tell it."""
        self._listener.under_way(samples, size_bytes)
        now = time.monotonic()
        if now - self._told < PROGRESS_EVERY_S:
            return
        self._told = now
        samples += self._done_samples
        seconds, share = now - self._begun, self._share(self._done_bytes + size_bytes)
        rate, shards = samples / seconds, number_of(self._shards, "shard")
        tell(
            "progress",
            f"{self._ended} of {shards}, {number_of(samples, 'sample')}, {rate:.1f} images/s",
            shards_ended=self._ended,
            shards_pending=self._shards - self._ended,
            samples=samples,
            images_per_s=round(rate, 2),
            seconds=round(seconds, 1),
            seconds_left=round(seconds * (1 / share - 1)) if share else None,
        )

    def ended(self, result: ShardResult) -> None:
        """Pass on, and tell, what a shard has come to."""
        self._listener.ended(result)
        self._ended += 1
        self._done_bytes += result.shard.size_bytes
        if isinstance(result, ShardDone):
            self._done_samples += result.counts.samples_in
        _tell_result(result)

    def _share(self, size_bytes: int) -> float:
        return min(size_bytes / self._size_bytes, 1.0) if self._size_bytes else 0.0


@contextmanager
def told_to(log: RunLog) -> Iterator[None]:
    """Record a block in a run's log; if an error or a signal ends it, with that."""
    with log.recording():
        try:
            yield
        except BaseException as error:
            _tell_error(error)
            raise


def tell_begun(run: Run, recipe: Recipe | ScreenRecipe, mine: int, pending: int) -> None:
    """Tell what a command is about to do, and with what."""
    engine, shards = recipe.engine, number_of(len(run.inputs), "shard")
    tell(
        "begun",
        f"{run.store.url()}: {pending} of {shards} to clean, by {engine.kind}",
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        run=run.store.url(),
        fingerprint=run.fingerprint,
        host=platform.node(),
        pid=os.getpid(),
        python=platform.python_version(),
        versions=versions_of("capfilt", *LIBRARIES),
        engine=engine.model_dump(include={"kind", "address", "actors", "device"}),
        dtype=recipe.dtype,
        shards={"total": len(run.inputs), "mine": mine, "pending": pending},
    )


def tell_ended(exit_code: int, statistics: Mapping[str, Any], pending: int) -> None:
    """Tell what the whole run has come to by now."""
    samples = {name: statistics[name] for name in ("samples_in", "kept", "filtered", "rejected")}
    seen = number_of(samples["samples_in"], "sample")
    tell(
        ENDED,
        f"exit code {exit_code}: kept {samples['kept']} of {seen}",
        exit_code=exit_code,
        pending_here=pending,
        shards=statistics["shards"],
        **samples,
    )


def _tell_result(result: ShardResult) -> None:
    shard = result.shard.shard
    if isinstance(result, ShardFailed):
        tell(
            "shard_failed",
            f"shard {shard} failed: {result.why}",
            logging.WARNING,
            shard=shard,
            why=result.why,
        )
    elif isinstance(result, ShardQuarantined):
        line = f"shard {shard} is put aside: {result.why}"
        tell("shard_quarantined", line, logging.WARNING, shard=shard, why=result.why)
    else:
        counts = result.counts
        seen = number_of(counts.samples_in, "sample")
        tell(
            "shard_done",
            f"shard {shard} is done: kept {counts.kept} of {seen}",
            shard=shard,
            samples=counts.samples_in,
            kept=counts.kept,
            filtered=counts.filtered,
            rejected=counts.rejected,
            damaged=result.damaged or None,
            seconds=result.seconds,
            worker=result.worker,
        )


def _tell_error(error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt):
        error = SystemExit(128 + signal.SIGINT)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        by = signal.Signals(code - 128).name if code - 128 in set(signal.Signals) else None
        tell(ENDED, f"stopped by {by or 'its caller'}", logging.WARNING, exit_code=code, signal=by)
        return
    what, why = type(error).__name__, str(error)
    code = 2 if isinstance(error, Exception) and missing_extra(error) else 1
    code = getattr(type(error), "exit_code", code)
    tell(ENDED, f"failed: {what}: {why}", logging.ERROR, exit_code=code, error=what, why=why)
