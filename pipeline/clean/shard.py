"""Clean one shard: read, screen, caption, score, judge, export, commit.

Each model sees a picture once. Rows are written in the order of the input, whatever the batches
were. A shard whose attempts are lost again and again is done in safe mode: one sample at a time,
its picture decoded in a child process.
"""

import logging
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.clean.batch import BatchModels
from pipeline.clean.caption import CaptionConfig, Captioner
from pipeline.clean.export import Provenance, WriteConfig, clean_sample
from pipeline.clean.judge import JudgeConfig, judge
from pipeline.clean.prepare import (
    DecodeStalled,
    ExecutionConfig,
    PreparedSample,
    Stream,
    in_threads,
    under_guard,
)
from pipeline.clean.score import ScoreConfig, Scorer
from pipeline.clean.screen import ScreenConfig
from pipeline.config import Config
from shards.inputs.listing import InputShard, changed_since_listed, check_current
from shards.inputs.reader import RawSample, ShardReader, open_shard
from shards.inputs.text import text_source
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
from shards.run.commit import Commit, FilesGone, InputRecord, commit, read_commit
from shards.run.run import Run
from shards.schema import TEXTS, DecisionRow, arrow_rows
from shards.writer import ShardWriter

_log = logging.getLogger(__name__)

Report = Callable[[int, int], None]

# Raised whenever the same recipe, weights and input would give another output.
OUTPUT_VERSION = 2

# Bounds on a batch: neither a shard of huge files nor one of rejected samples may fill the memory.
MAX_BATCH_BYTES = 128 << 20
MAX_BATCH_ROWS = 1_000

# What another attempt may overcome: by more memory, or in safe mode.
LOST = (MemoryError, DecodeStalled)


class AttemptLost(RuntimeError):  # noqa: N818 - reads as what happened
    """An attempt that ended for no fault that anyone can name yet."""


class CleanConfig(Config):
    """Everything that decides what a run writes."""

    seed: int = 0
    dtype: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    screen: ScreenConfig = ScreenConfig()
    caption: CaptionConfig
    score: ScoreConfig
    judge: JudgeConfig = JudgeConfig()
    write: WriteConfig = WriteConfig()


def identity(config: CleanConfig, captioner: str, scorer: str, text: str = "txt") -> dict[str, Any]:
    """Collect what changes the output; models stand by the digest of their content, not by name.

    `text` says where the input's texts stand.
    """
    named = config.model_dump(
        mode="json",
        include=set(CleanConfig.model_fields),
        exclude={"caption": {"model", "revision"}, "score": {"model", "revision"}},
    )
    named["caption"]["digest"] = captioner
    named["score"]["digest"] = scorer
    named["input"] = {"text": text}
    return named | {"output_version": OUTPUT_VERSION}


class ShardCleaner:
    """Cleans shards of one run with models that are loaded once."""

    def __init__(
        self,
        run: Run,
        config: CleanConfig,
        captioner: Captioner,
        scorer: Scorer,
        pace: ExecutionConfig,
        hardware: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a cleaner; `hardware` describes the models' device, for the commits."""
        self._run, self._config, self._pace = run, config, pace
        self._hardware = dict(hardware or {"device": "cpu"})
        self._models = BatchModels(
            captioner, scorer, config.screen, config.write, config.caption.candidates
        )

    def clean(
        self, shard: InputShard, report: Report, worker: str | None = None
    ) -> Commit | Quarantine:
        """Clean one shard and commit it; if another driver was first, return that one's commit.

        `report(samples, bytes)` is called with how far it is; `worker` names who works, for the
        record of the attempt. Too many attempts that were lost lead to safe mode, and at last to
        quarantine. Raises InputChanged if the shard is not the one that was listed, AttemptLost if
        another attempt may do better, and FilesGone if what was written went away twice.
        """
        try:
            return self._clean(shard, report, worker)
        except FilesGone as error:  # this process was frozen for long, and its files taken for dead
            _log.warning("%s", error)
            return self._clean(shard, report, worker)

    def _clean(self, shard: InputShard, report: Report, worker: str | None) -> Commit | Quarantine:
        done = read_commit(self._run, shard.shard)
        if done is not None:
            return done
        lost = [attempt for attempt in read_attempts(self._run, shard.shard) if attempt.lost]
        deaths = [death for death in lost if death.safe and death.ending == Ending.DIED]
        if len(deaths) >= DEATHS_TO_QUARANTINE:
            return quarantine(self._run, shard.shard, deaths)
        safe = len(lost) >= SAFE_FROM
        attempt = start_attempt(self._run, shard.shard, safe, worker)
        try:
            return self._attempt(shard, attempt, safe, report)
        except BaseException as error:
            with suppress(OSError):  # a full disk cannot record it; the attempt counts as lost
                end_attempt(self._run, shard.shard, attempt, _ending(error), str(error))
            if isinstance(error, LOST):
                raise AttemptLost(f"shard {shard.shard}: {error}") from error
            raise

    def _attempt(self, shard: InputShard, attempt: str, safe: bool, report: Report) -> Commit:
        started, begin_s = datetime.now(UTC).isoformat(), time.monotonic()
        self._models.splits = 0
        with (
            open_shard(shard.url) as file,
            ShardWriter(self._run.store, shard.shard, attempt) as writer,
        ):
            reader = ShardReader(file, text_source(self._run.identity))
            self._write_rows(shard.shard, reader, writer, safe, report)
            _check_unchanged(shard, reader.bytes_read)
            files = tuple(writer.finish())
            counts = writer.counts
        result = Commit(
            shard=shard.shard,
            fingerprint=self._run.fingerprint,
            attempt=attempt,
            input=InputRecord(
                url=shard.url,
                size_bytes=shard.size_bytes,
                etag=shard.etag,
                mtime=shard.mtime,
                sha256=reader.sha256,
            ),
            state=reader.state,
            files=files,
            counts=counts,
            environment=self._environment(safe, counts.samples_in / (time.monotonic() - begin_s)),
            started=started,
            ended=datetime.now(UTC).isoformat(),
        )
        if commit(self._run, result):
            return result
        winner = read_commit(self._run, shard.shard)
        if winner is None:
            raise AttemptLost(f"shard {shard.shard}: what stands for its commit cannot be read")
        return winner

    def _write_rows(
        self,
        shard: str,
        raws: Iterable[RawSample],
        writer: ShardWriter,
        safe: bool,
        report: Report,
    ) -> None:
        samples = 0
        prepare, size = (under_guard, 1) if safe else (in_threads, self._pace.batch_size)
        with prepare(raws, self._models.prepare, self._pace) as stream:
            for batch, offset in _batches(stream, size):
                self._models.fill_in(shard, [sample for sample in batch if sample.screened.ok])
                self._write_batch(shard, batch, writer)
                samples += len(batch)
                report(samples, offset)

    def _write_batch(self, shard: str, batch: list[PreparedSample], writer: ShardWriter) -> None:
        decisions = iter(self._judge(shard, batch))
        provenance = Provenance(shard, self._run.fingerprint, self._config.seed)
        write = self._config.write
        for sample in batch:
            texts, facts = sample.texts, sample.screened.facts
            verdicts = [next(decisions) for _ in texts]
            kept = [t for t, verdict in zip(texts, verdicts, strict=True) if verdict["keep"]]
            clean = None
            if kept and write.clean == "tar":
                clean = clean_sample(facts, kept, sample.image, write, provenance)
            writer.add(facts, texts, verdicts, clean)

    def _judge(self, shard: str, batch: list[PreparedSample]) -> list[DecisionRow]:
        rows = [
            text | {"shard": shard, "index": sample.screened.facts["index"]}
            for sample in batch
            for text in sample.texts
        ]
        decisions: list[DecisionRow] = judge(
            arrow_rows(rows, TEXTS), self._config.judge
        ).to_pylist()
        return decisions

    def _environment(self, safe: bool, images_per_s: float) -> dict[str, Any]:
        import torch

        return {
            "host": platform.node(),
            **self._hardware,
            "dtype": self._config.dtype,
            "batch_size": 1 if safe else self._pace.batch_size,
            "images_per_s": round(images_per_s, 2),
            "splits": self._models.splits,
            "safe_mode": safe,
            "threads": torch.get_num_threads(),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "torch": torch.__version__,
        }


def _batches(samples: Stream, size: int) -> Iterator[tuple[list[PreparedSample], int]]:
    """Gather samples until a batch of pictures is full; rejected ones ride along, in order."""
    batch: list[PreparedSample] = []
    pictures, held_bytes, begin, offset = 0, 0, 0, 0
    for sample, offset in samples:
        batch.append(sample)
        pictures += sample.screened.ok
        held_bytes += len(sample.image)  # more than was read, of a packed input
        heavy = len(batch) == MAX_BATCH_ROWS or max(offset - begin, held_bytes) > MAX_BATCH_BYTES
        if heavy or pictures == size:
            yield batch, offset
            batch, pictures, held_bytes, begin = [], 0, 0, offset
    if batch:
        yield batch, offset


def _ending(error: BaseException) -> Ending:
    if isinstance(error, LOST):
        return Ending.DIED
    return Ending.FAILED if isinstance(error, Exception) else Ending.RELEASED


def _check_unchanged(shard: InputShard, bytes_read: int) -> None:
    if bytes_read != shard.size_bytes:
        raise changed_since_listed(shard, f"{shard.size_bytes} bytes", f"{bytes_read} bytes")
    check_current(shard)
