"""Clean one shard: read, screen, caption, score, judge, export, commit.

Pictures are decoded once, in threads, ahead of the models, and each model sees a picture once. At
most `decode_threads` pictures are decoded at a time; members that wait are bounded in number and in
bytes. Rows are written in the order of the input, whatever the batches were.
"""

import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from pipeline.caption import CaptionConfig, Captioner, caption
from pipeline.export import Provenance, WriteConfig, clean_sample, encode_jpeg
from pipeline.judge import JudgeConfig, judge
from pipeline.score import ScoreConfig, Scorer, score
from pipeline.screen import ScreenConfig, Screened, screen
from shards.commit import Commit, InputRecord, StateRecord, commit, read_commit, start_attempt
from shards.listing import InputChanged, InputShard
from shards.reader import RawSample, ShardReader, open_shard
from shards.run import Run
from shards.schema import TEXTS, arrow_rows
from shards.writer import ShardWriter

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]

# Raised whenever the same recipe, weights and input would give another output.
OUTPUT_VERSION = 1

# Bounds on a batch, and on what waits to be one: neither a shard of huge files nor one of rejected
# samples may fill the memory.
MAX_BATCH_BYTES = 128 << 20
MAX_BATCH_ROWS = 1_000


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


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to work; none of it changes the output."""

    batch_size: int = 16
    decode_threads: int = 2


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


@dataclass(slots=True)
class _Ready:
    """A screened sample with what the models and the writer need, the decoded picture let go."""

    screened: Screened
    views: tuple["Tensor", ...] = ()  # uint8 (3, H, W) for the captioner and for the filter
    image: bytes = b""  # as the clean shard will hold it
    texts: list[Row] = field(default_factory=list)


class ShardCleaner:
    """Cleans shards of one run with models that are loaded once."""

    def __init__(
        self, run: Run, config: CleanConfig, captioner: Captioner, scorer: Scorer, pace: Pace
    ) -> None:
        self._run, self._config, self._pace = run, config, pace
        self._captioner, self._scorer = captioner, scorer

    def clean(self, shard: InputShard, report: Callable[[int, int], None]) -> Commit:
        """Clean one shard and commit it; if another driver was first, give that one's commit.

        `report(samples, bytes)` hears how far it is. Raises InputChanged if the shard is not the
        one that was listed.
        """
        done = read_commit(self._run, shard.shard)
        if done is not None:
            return done
        started = datetime.now(UTC).isoformat()
        attempt = start_attempt(self._run, shard.shard)
        with (
            open_shard(shard.url) as file,
            ShardWriter(self._run.store, shard.shard, attempt) as writer,
        ):
            reader = ShardReader(file)
            self._write_rows(shard.shard, reader, writer, report)
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
            environment=self._environment(),
            started=started,
            ended=datetime.now(UTC).isoformat(),
        )
        if commit(self._run, result):
            return result
        return read_commit(self._run, shard.shard) or result

    def _write_rows(
        self,
        shard: str,
        raws: Iterable[RawSample],
        writer: ShardWriter,
        report: Callable[[int, int], None],
    ) -> None:
        samples = 0
        # opened here, not in the generator, so that an error ends the threads at once
        with ThreadPoolExecutor(self._pace.decode_threads, "decode") as pool:
            for batch, offset in self._batches(self._decode_ahead(raws, pool)):
                self._run_models(shard, [ready for ready in batch if ready.screened.ok])
                self._write_batch(shard, batch, writer)
                samples += len(batch)
                report(samples, offset)

    def _batches(self, samples: Iterable[tuple[_Ready, int]]) -> Iterator[tuple[list[_Ready], int]]:
        """Gather samples until a batch of pictures is full; rejected ones ride along, in order."""
        batch: list[_Ready] = []
        pictures, begin, offset = 0, 0, 0
        for ready, offset in samples:
            batch.append(ready)
            pictures += ready.screened.ok
            heavy = len(batch) == MAX_BATCH_ROWS or offset - begin > MAX_BATCH_BYTES
            if heavy or pictures == self._pace.batch_size:
                yield batch, offset
                batch, pictures, begin = [], 0, offset
        if batch:
            yield batch, offset

    def _decode_ahead(
        self, raws: Iterable[RawSample], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[_Ready, int]]:
        """Screen in threads, at most two batches ahead of the models, in the order of the input."""
        ahead: deque[tuple[Future[_Ready], int]] = deque()
        done, most = 0, 2 * self._pace.batch_size
        for raw in raws:
            ahead.append((pool.submit(self._prepare, raw), raw.end_offset))
            while len(ahead) > most or raw.end_offset - done > MAX_BATCH_BYTES:
                future, done = ahead.popleft()
                yield future.result(), done
        for future, done in ahead:
            yield future.result(), done

    def _prepare(self, raw: RawSample) -> _Ready:
        """Decode a sample once, for both models and for the clean shard."""
        screened = screen(raw, self._config.screen)
        if screened.image is None:
            return _Ready(screened)
        picture, write = screened.image, self._config.write
        first = self._captioner.preprocess.resize(picture)
        same = self._captioner.preprocess == self._scorer.preprocess
        second = first if same else self._scorer.preprocess.resize(picture)
        image = b""
        if write.clean == "tar":
            image = encode_jpeg(picture) if write.images == "jpeg" else screened.original
        screened.image, screened.original = None, b""
        return _Ready(screened, (first, second), image)

    def _run_models(self, shard: str, batch: list[_Ready]) -> None:
        """Fill in the texts of pictures: the web's, the captioner's, all with their scores."""
        if not batch:
            return
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

    def _write_batch(self, shard: str, batch: list[_Ready], writer: ShardWriter) -> None:
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

    def _judge(self, shard: str, batch: list[_Ready]) -> list[Row]:
        rows = [
            text | {"shard": shard, "index": ready.screened.facts["index"]}
            for ready in batch
            for text in ready.texts
        ]
        decisions: list[Row] = judge(arrow_rows(rows, TEXTS), self._config.judge).to_pylist()
        return decisions

    def _environment(self) -> dict[str, Any]:
        import torch

        return {
            "host": platform.node(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "dtype": self._config.dtype,
            "batch_size": self._pace.batch_size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


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
