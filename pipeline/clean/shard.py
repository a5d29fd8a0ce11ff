"""Clean one shard: read, screen, caption, score, judge, export, commit.

Each model sees a picture once. Rows are written in the order of the input, whatever the batches
were. A shard whose attempts are lost again and again is done in safe mode: one sample at a time,
its picture decoded in a child process.
"""

import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipeline.clean.caption import CaptionConfig, Captioner, caption
from pipeline.clean.export import Provenance, WriteConfig, clean_sample, encode_jpeg
from pipeline.clean.judge import JudgeConfig, judge
from pipeline.clean.prepare import (
    DecodeStalled,
    ExecutionConfig,
    PreparedSample,
    Stream,
    in_threads,
    under_guard,
)
from pipeline.clean.score import ScoreConfig, Scorer, score
from pipeline.clean.screen import Decode, ScreenConfig, screen
from shards.inputs.listing import InputChanged, InputShard
from shards.inputs.reader import RawSample, ShardReader, open_shard
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
from shards.run.commit import Commit, InputRecord, StateRecord, commit, read_commit
from shards.run.run import Run
from shards.schema import TEXTS, arrow_rows
from shards.writer import ShardWriter

Row = dict[str, Any]
Report = Callable[[int, int], None]

# Raised whenever the same recipe, weights and input would give another output.
OUTPUT_VERSION = 1

# Bounds on a batch: neither a shard of huge files nor one of rejected samples may fill the memory.
MAX_BATCH_BYTES = 128 << 20
MAX_BATCH_ROWS = 1_000

# What another attempt may overcome: by more memory, or in safe mode.
LOST = (MemoryError, DecodeStalled)


class AttemptLost(RuntimeError):  # noqa: N818 - reads as what happened
    """An attempt that ended for no fault that anyone can name yet."""


class CleanConfig(BaseModel):
    """Everything that decides what a run writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    screen: ScreenConfig = ScreenConfig()
    caption: CaptionConfig
    score: ScoreConfig
    judge: JudgeConfig = JudgeConfig()
    write: WriteConfig = WriteConfig()


def identity(config: CleanConfig, captioner: str, scorer: str) -> dict[str, Any]:
    """Collect what changes the output; models stand by the digest of their content, not by name."""
    named = config.model_dump(
        mode="json",
        include=set(CleanConfig.model_fields),
        exclude={"caption": {"model", "revision"}, "score": {"model", "revision"}},
    )
    named["caption"]["digest"] = captioner
    named["score"]["digest"] = scorer
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
    ) -> None:
        self._run, self._config, self._pace = run, config, pace
        self._captioner, self._scorer = captioner, scorer
        self._splits = 0  # of batches, in the attempt under way

    def clean(
        self, shard: InputShard, report: Report, worker: str | None = None
    ) -> Commit | Quarantine:
        """Clean one shard and commit it; if another driver was first, give that one's commit.

        `report(samples, bytes)` hears how far it is; `worker` names who works, for the record of
        the attempt. Too many attempts that were lost lead to safe mode, and at last to quarantine.
        Raises InputChanged if the shard is not the one that was listed, and AttemptLost if another
        attempt may do better.
        """
        done = read_commit(self._run, shard.shard)
        if done is not None:
            return done
        lost = [one for one in read_attempts(self._run, shard.shard) if one.lost]
        deaths = [one for one in lost if one.safe and one.ending == Ending.DIED]
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
        started, self._splits = datetime.now(UTC).isoformat(), 0
        with (
            open_shard(shard.url) as file,
            ShardWriter(self._run.store, shard.shard, attempt) as writer,
        ):
            reader = ShardReader(file)
            self._write_rows(shard.shard, reader, writer, safe, report)
            _check_size(shard, reader.bytes_read)
            files = tuple(writer.finish())
            counts = writer.counts
        result = Commit(
            shard=shard.shard,
            fingerprint=self._run.fingerprint,
            attempt=attempt,
            input=_input_record(shard, reader.sha256),
            state=_state_record(reader),
            files=files,
            counts=counts,
            environment=self._environment(safe),
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
        with prepare(raws, self._prepare, self._pace) as stream:
            for batch, offset in _batches(stream, size):
                self._run_models(shard, [ready for ready in batch if ready.screened.ok])
                self._write_batch(shard, batch, writer)
                samples += len(batch)
                report(samples, offset)

    def _prepare(self, raw: RawSample, decode: Decode) -> PreparedSample:
        """Decode a sample once, for both models and for the clean shard."""
        screened = screen(raw, self._config.screen, decode)
        if screened.image is None:
            return PreparedSample(screened)
        picture, write = screened.image, self._config.write
        first = self._captioner.preprocess.resize(picture)
        same = self._captioner.preprocess == self._scorer.preprocess
        second = first if same else self._scorer.preprocess.resize(picture)
        image = b""
        if write.clean == "tar":
            image = encode_jpeg(picture) if write.images == "jpeg" else screened.original
        screened.image, screened.original = None, b""
        return PreparedSample(screened, (first, second), image)

    def _run_models(self, shard: str, batch: list[PreparedSample]) -> None:
        """Fill in the texts of pictures; a batch that the GPU cannot hold is done in halves."""
        if not batch:
            return
        import torch

        try:
            self._fill_in(shard, batch)
        except torch.OutOfMemoryError:
            half = len(batch) // 2
            if not half:
                raise
            self._splits += 1
            torch.cuda.empty_cache()
            self._run_models(shard, batch[:half])
            self._run_models(shard, batch[half:])

    def _fill_in(self, shard: str, batch: list[PreparedSample]) -> None:
        """Fill in the texts of pictures: the web's, the captioner's, all with their scores."""
        import torch

        keys = [f"{shard}/{ready.screened.facts['key']}" for ready in batch]
        count = self._config.caption.candidates
        written = caption(
            self._captioner, torch.stack([ready.views[0] for ready in batch]), keys, count
        )
        given = [
            [*_web_rows(ready.screened.facts), *rows]
            for ready, rows in zip(batch, written, strict=True)
        ]
        scored = score(self._scorer, torch.stack([ready.views[1] for ready in batch]), given)
        for ready, rows in zip(batch, scored, strict=True):
            ready.texts, ready.views = rows, ()

    def _write_batch(self, shard: str, batch: list[PreparedSample], writer: ShardWriter) -> None:
        decisions = iter(self._judge(shard, batch))
        provenance = Provenance(shard, self._run.fingerprint, self._config.seed)
        write = self._config.write
        for ready in batch:
            texts, facts = ready.texts, ready.screened.facts
            verdicts = [next(decisions) for _ in texts]
            kept = [t for t, verdict in zip(texts, verdicts, strict=True) if verdict["keep"]]
            clean = None
            if kept and write.clean == "tar":
                clean = clean_sample(facts, kept, ready.image, write, provenance)
            writer.add(facts, texts, verdicts, clean)

    def _judge(self, shard: str, batch: list[PreparedSample]) -> list[Row]:
        rows = [
            text | {"shard": shard, "index": ready.screened.facts["index"]}
            for ready in batch
            for text in ready.texts
        ]
        decisions: list[Row] = judge(arrow_rows(rows, TEXTS), self._config.judge).to_pylist()
        return decisions

    def _environment(self, safe: bool) -> dict[str, Any]:
        import torch

        return {
            "host": platform.node(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "dtype": self._config.dtype,
            "batch_size": 1 if safe else self._pace.batch_size,
            "splits": self._splits,
            "safe_mode": safe,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def _batches(samples: Stream, size: int) -> Iterator[tuple[list[PreparedSample], int]]:
    """Gather samples until a batch of pictures is full; rejected ones ride along, in order."""
    batch: list[PreparedSample] = []
    pictures, begin, offset = 0, 0, 0
    for ready, offset in samples:
        batch.append(ready)
        pictures += ready.screened.ok
        heavy = len(batch) == MAX_BATCH_ROWS or offset - begin > MAX_BATCH_BYTES
        if heavy or pictures == size:
            yield batch, offset
            batch, pictures, begin = [], 0, offset
    if batch:
        yield batch, offset


def _ending(error: BaseException) -> Ending:
    if isinstance(error, LOST):
        return Ending.DIED
    return Ending.FAILED if isinstance(error, Exception) else Ending.RELEASED


def _web_rows(facts: Row) -> list[Row]:
    if facts["web_text"] is None:
        return []
    return [{"text_no": 0, "origin": "web", "text": facts["web_text"]}]


def _check_size(shard: InputShard, bytes_read: int) -> None:
    if bytes_read != shard.size_bytes:
        raise InputChanged(
            f"input shard {shard.shard!r} ({shard.url}) changed since it was listed: expected "
            f"{shard.size_bytes} bytes, found {bytes_read}; restore it, or clean into another "
            "output folder"
        )


def _input_record(shard: InputShard, sha256: str) -> InputRecord:
    return InputRecord(
        url=shard.url,
        size_bytes=shard.size_bytes,
        etag=shard.etag,
        mtime=shard.mtime,
        sha256=sha256,
    )


def _state_record(reader: ShardReader) -> StateRecord:
    state = reader.state
    return StateRecord(state=state.state, offset=state.offset, detail=state.detail)
