"""One attempt on a shard: its record, its rows, and at last its commit."""

import math
import platform
import resource
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.clean.export import Provenance, WriteConfig, clean_sample
from pipeline.clean.judge import JUDGED, JudgeConfig, judge
from pipeline.clean.lists import skipped_keys
from pipeline.clean.prepare import DecodeStalled, PreparedSample
from shards.inputs.listing import check_current
from shards.inputs.opening import SampleReader
from shards.inputs.shard import InputShard, changed_since_listed
from shards.run.attempt import (
    DEATHS_TO_QUARANTINE,
    SAFE_FROM,
    Ending,
    Quarantine,
    end_attempt,
    quarantine,
    read_attempts,
    start_attempt,
)
from shards.run.commit import Commit, InputRecord, commit, read_commit
from shards.run.run import Run
from shards.schema import DecisionRow, ScoredTextRow, ScoreRow, TextRow
from shards.writer import ShardWriter

# What another attempt may overcome: by more memory, or in safe mode.
LOST = (MemoryError, DecodeStalled)


class AttemptLost(RuntimeError):  # noqa: N818 - reads as what happened
    """An attempt that ended for no fault that anyone can name yet."""


class GivenBack(BaseException):
    """A shard that another is to do, or that nobody waits for."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where all attempts of a worker write to, and what decides how."""

    run: Run
    judge: JudgeConfig
    write: WriteConfig
    seed: int
    worker: str | None
    about: Mapping[str, Any]  # of the worker, for the commits


class ShardAttempt:
    """A shard on its way through the stages, each of which calls its own methods.

    `stopped` is done once it goes no further; what is still on its way is then dropped. `closed` is
    set once it is committed, or its record says how it ended.
    """

    def __init__(self, target: Target, shard: InputShard) -> None:
        self.shard = shard
        self.safe = self.alone = False  # alone: it has lost attempts, and must take no other along
        self.splits = 0  # of batches that the GPU could not hold
        self.samples = 0
        self.stopped: Future[None] = Future()
        self.closed = threading.Event()
        self._target, self._lock = target, threading.Lock()
        self._attempt: str | None = None
        self._writing = ExitStack()
        self._outcome: Commit | Quarantine | None = None
        self._error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Go no further; the first error counts, and none after a commit."""
        with self._lock:
            if self._outcome is None and self._error is None:
                self._error = error
            if not self.stopped.done():
                self.stopped.set_result(None)

    def result(self) -> Commit | Quarantine:
        """Return what it came to, once it is closed; raises what made it fail."""
        if self._outcome is not None:
            return self._outcome
        raise self._error or RuntimeError(f"shard {self.shard.shard} came to nothing")

    @property
    def is_given_back(self) -> bool:
        """Whether somebody has taken it back."""
        return isinstance(self._error, GivenBack)

    # --- The reading stage. ---

    def look(self) -> bool:
        """Look at the shard's records: whether there is anything to do."""
        run, shard = self._target.run, self.shard.shard
        self._outcome = read_commit(run, shard)
        if self._outcome is not None:
            return False
        lost = [attempt for attempt in read_attempts(run, shard) if attempt.lost]
        deaths = [death for death in lost if death.safe and death.ending == Ending.DIED]
        if len(deaths) >= DEATHS_TO_QUARANTINE:
            self._outcome = quarantine(run, shard, deaths)
            return False
        self.alone, self.safe = bool(lost), len(lost) >= SAFE_FROM
        return True

    def begin(self) -> None:
        """Record the attempt, before any work."""
        run, shard = self._target.run, self.shard.shard
        self._started, self._begun_s = datetime.now(UTC).isoformat(), time.monotonic()
        self._attempt = start_attempt(run, shard, self.safe, self._target.worker)
        self.skipped = skipped_keys(run, shard)
        writer = ShardWriter(run.store, shard, self._attempt, only_screens=run.only_screens)
        self._writer = self._writing.enter_context(writer)

    def has_read(self, reader: SampleReader) -> None:
        """Take note of how the shard ended, after its last sample."""
        self._reader = reader

    # --- The writing stage. ---

    def write(self, batch: list[PreparedSample]) -> None:
        """Judge and write a batch."""
        target, shard = self._target, self.shard.shard
        decisions = iter(_judged(shard, batch, target.judge))
        by = target.judge.by
        provenance = Provenance(shard, target.run.fingerprint, target.seed)
        for sample in batch:
            texts, facts = sample.texts, sample.screened.facts
            verdicts = [next(decisions) for _ in texts]
            kept: Sequence[TextRow]
            kept = [t for t, verdict in zip(texts, verdicts, strict=True) if verdict["keep"]]
            if kept and "." in by:
                kept = _with_scores(kept, sample.scores, by)
            clean = None
            if kept and target.write.clean == "tar":
                clean = clean_sample(facts, kept, sample.image, target.write, provenance)
            self._writer.add(facts, texts, verdicts, clean, sample.scores)
        self.samples += len(batch)

    def close(self, free_since: float) -> None:
        """Commit it, or record how it failed; `free_since`: when the one before was closed."""
        if self.closed.is_set():
            return
        try:
            if not self.stopped.done() and self._outcome is None:
                self._settle(self._finish(max(free_since, self._begun_s)))
        except BaseException as error:
            self.fail(error)
        self._writing.close()  # what is not committed goes
        self.record_end()

    def record_end(self) -> None:
        """Record how it failed, if it did; it is closed then, whatever still goes on."""
        error = self._error
        if self._outcome is None and error is not None and self._attempt is not None:
            with suppress(OSError):  # a full disk cannot record it; the attempt counts as lost
                end_attempt(
                    self._target.run, self.shard.shard, self._attempt, _ending(error), str(error)
                )
        self.closed.set()

    def _settle(self, outcome: Commit) -> None:
        with self._lock:
            self._outcome = outcome

    def _finish(self, begun_s: float) -> Commit:
        shard, run = self.shard, self._target.run
        _check_unchanged(shard, self._reader.bytes_read)
        files = tuple(self._writer.finish())
        counts = self._writer.counts
        result = Commit(
            shard=shard.shard,
            fingerprint=run.fingerprint,
            attempt=str(self._attempt),
            input=InputRecord(
                url=shard.url,
                size_bytes=shard.size_bytes,
                etag=shard.etag,
                mtime=shard.mtime,
                sha256=self._reader.sha256,
            ),
            state=self._reader.state,
            files=files,
            counts=counts,
            environment=_environment(
                self._target, self, counts.samples_in / (time.monotonic() - begun_s)
            ),
            started=self._started,
            ended=datetime.now(UTC).isoformat(),
        )
        if commit(run, result):
            return result
        winner = read_commit(run, shard.shard)
        if winner is None:
            raise AttemptLost(f"shard {shard.shard}: what stands for its commit cannot be read")
        return winner


def _environment(target: Target, attempt: ShardAttempt, images_per_s: float) -> dict[str, Any]:
    import torch

    return {
        "host": platform.node(),
        **target.about,
        **({"batch_size": 1} if attempt.safe else {}),
        "images_per_s": round(images_per_s, 2),
        "splits": attempt.splits,
        "safe_mode": attempt.safe,
        "threads": torch.get_num_threads(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "torch": torch.__version__,
    }


def _judged(shard: str, batch: list[PreparedSample], config: JudgeConfig) -> list[DecisionRow]:
    rows = [
        text | {"shard": shard, "index": sample.screened.facts["index"]}
        for sample in batch
        for text in sample.texts
    ]
    scores = None
    if "." in config.by:
        values = (
            _values(sample.scores, config.by).get(text["text_no"], math.nan)
            for sample in batch
            for text in sample.texts
        )
        scores = np.fromiter(values, np.float32, len(rows))
    table = pa.Table.from_pylist(rows, schema=JUDGED)
    decisions: list[DecisionRow] = judge(table, config, scores).to_pylist()
    return decisions


def _with_scores(
    texts: Sequence[TextRow], scores: Sequence[ScoreRow], by: str
) -> list[ScoredTextRow]:
    """Put the score that decides beside texts, so that the best of them can be told."""
    values = _values(scores, by)
    return [{**text, "score": values.get(text["text_no"])} for text in texts]


def _values(scores: Sequence[ScoreRow], by: str) -> dict[int, float]:
    """Find a scorer's score, NAME.SCORE, of each text of a sample."""
    return {
        row["text_no"]: row["value"] for row in scores if f"{row['scorer']}.{row['name']}" == by
    }


def _ending(error: BaseException) -> Ending:
    if isinstance(error, LOST):
        return Ending.DIED
    return Ending.FAILED if isinstance(error, Exception) else Ending.RELEASED


def _check_unchanged(shard: InputShard, bytes_read: int) -> None:
    if bytes_read != shard.size_bytes:
        raise changed_since_listed(shard, f"{shard.size_bytes} bytes", f"{bytes_read} bytes")
    check_current(shard)
