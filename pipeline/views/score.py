"""Score a finished run's texts by another model: its pictures are read from the input once more.

A shard is scored as it was cleaned: an attempt, files of its own, one commit. The pictures must be
those that were cleaned; what was rejected then is not looked at.
"""

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.clean.line.attempt import AttemptLost
from pipeline.clean.prepare import DecodeStalled, ExecutionConfig
from pipeline.clean.screen import ScreenConfig
from pipeline.media.ahead import Stalled, read_ahead
from pipeline.media.decode import DecodeLimits, DecodeRefusal, decode
from shards.inputs.listing import DIVIDED_OTHERWISE, check_current
from shards.inputs.opening import SampleReader, open_samples
from shards.inputs.reader import RawSample
from shards.inputs.shard import InputChanged, InputShard
from shards.inputs.text import text_source
from shards.run.attempt import Ending, end_attempt, start_attempt
from shards.run.commit import Commit, read_commit
from shards.run.data import read_data
from shards.run.scoring.score_set import ScoresError, ScoreSet, scores_file
from shards.schema import SCORES
from shards.writer import commit_scores

if TYPE_CHECKING:
    from models.scorers.scorer import Scored, Scorer

Report = Callable[[int, int], None]  # hears how many samples and bytes are done


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of one sample, and the hash of the picture that they are of."""

    key: str
    sha256: str
    numbers: tuple[int, ...]
    texts: tuple[str, ...]


class ShardScorer:
    """Scores shards of one run with a model that is loaded once."""

    def __init__(
        self,
        scores: ScoreSet,
        scorer: "Scorer",
        pace: ExecutionConfig,
        hardware: dict[str, Any],
    ) -> None:
        """Make a scorer of shards; `hardware` describes the model's device, for the commits."""
        self._scores, self._scorer, self._pace = scores, scorer, pace
        self._hardware = hardware
        screen = ScreenConfig.model_validate(scores.run.identity.get("screen", {}))
        self._limits = DecodeLimits(screen.min_side, screen.max_pixels, screen.max_aspect)

    def score(self, shard: InputShard, report: Report, worker: str | None = None) -> Commit:
        """Score one shard and commit it; if another was first, return that one's commit.

        Raises InputChanged where the input is not what was cleaned, ScoresError for a shard that is
        not cleaned, and AttemptLost if another attempt may do better.
        """
        facts = read_commit(self._scores.run, shard.shard)
        if facts is None:
            raise ScoresError(f"shard {shard.shard} is not cleaned yet, and has no texts to score")
        if (done := read_commit(self._scores.record, shard.shard)) is not None:
            scores_file(self._scores.name, done, facts.files)  # of these texts
            return done
        attempt = start_attempt(self._scores.record, shard.shard, worker=worker)
        try:
            return self._attempt(shard, facts, attempt, report)
        except BaseException as error:
            lost = isinstance(error, MemoryError | DecodeStalled)
            ending = Ending.FAILED if isinstance(error, Exception) else Ending.RELEASED
            with suppress(OSError):  # a full disk cannot record it; the attempt counts as lost
                end_attempt(
                    self._scores.record,
                    shard.shard,
                    attempt,
                    Ending.DIED if lost else ending,
                    str(error),
                )
            if lost:
                raise AttemptLost(f"shard {shard.shard}: {error}") from error
            raise

    def _attempt(self, shard: InputShard, facts: Commit, attempt: str, report: Report) -> Commit:
        started, begin_s = datetime.now(UTC).isoformat(), time.monotonic()
        table = self._score_rows(shard, facts, report)
        check_current(shard)
        environment = {
            "host": platform.node(),
            **self._hardware,
            "batch_size": self._pace.batch_size,
            "texts_per_s": round(len(table) / (time.monotonic() - begin_s), 2),
        }
        commit_scores(self._scores, facts, table, attempt, environment, started)
        winner = read_commit(self._scores.record, shard.shard)
        if winner is None:
            raise AttemptLost(f"shard {shard.shard}: what stands for its commit cannot be read")
        return winner

    def _score_rows(self, shard: InputShard, facts: Commit, report: Report) -> pa.Table:
        wanted = _texts_of(self._scores, facts)
        columns: dict[str, list[Any]] = {"index": [], "text_no": [], "name": [], "value": []}
        order = sorted(range(len(self._scorer.scores)), key=lambda n: self._scorer.scores[n])
        samples = 0
        with open_samples(shard, text_source(self._scores.run.identity)) as raws:
            for batch in _batches(self._prepared(shard, raws, wanted), self._pace.batch_size):
                texts = [wanted[raw.index] for raw, _ in batch]
                scored = self._in_halves([made for _, made in batch], [t.texts for t in texts])
                for (raw, _), of_sample, scores in zip(batch, texts, scored, strict=True):
                    for number, of_text in zip(of_sample.numbers, scores, strict=True):
                        for place in order:
                            columns["index"].append(raw.index)
                            columns["text_no"].append(number)
                            columns["name"].append(self._scorer.scores[place])
                            columns["value"].append(of_text.values[place])
                samples += len(batch)
                report(samples, batch[-1][0].end_offset)
        if samples != len(wanted):
            raise _changed(shard, f"{len(wanted)} samples with texts", f"{samples} of them")
        return _table(shard.shard, self._scores.name, columns)

    def _prepared(
        self, shard: InputShard, raws: SampleReader, wanted: dict[int, _Texts]
    ) -> Iterator[tuple[RawSample, Any]]:
        """Decode and prepare the pictures that have texts, at most two batches ahead."""

        def prepare(raw: RawSample) -> Any:  # noqa: ANN401 - as the scorer has it
            expected = wanted[raw.index]
            data = raw.image or b""
            there = raw.key, hashlib.sha256(data).hexdigest()
            if there != (expected.key, expected.sha256):
                raise _changed(
                    shard,
                    f"key {expected.key!r}, image sha256 {expected.sha256} at {raw.index}",
                    f"key {there[0]!r}, image sha256 {there[1]}",
                )
            decoded = decode(data, self._limits)
            if isinstance(decoded, DecodeRefusal):
                raise _changed(shard, f"a picture at {raw.key!r}, as then", str(decoded.reason))
            return self._scorer.prepare(decoded.image)

        with_texts = (raw for raw in raws if raw.index in wanted)
        ahead = read_ahead(
            with_texts,
            prepare,
            lambda raw: len(raw.image or b""),
            2 * self._pace.batch_size,
            threads=self._pace.decode_threads,
            timeout_s=self._pace.stall_timeout_s,
        )
        with closing(ahead):  # so that an error ends the threads
            try:
                yield from ahead
            except Stalled as stall:
                raise DecodeStalled(f"the picture of {stall.item.key!r} is not decoded") from None

    def _in_halves(
        self, batch: Sequence[Any], texts: Sequence[Sequence[str]]
    ) -> "Sequence[Sequence[Scored]]":
        """Score a batch; one that the GPU cannot hold is done in halves."""
        import torch

        try:
            return self._scorer.score(batch, texts)
        except torch.OutOfMemoryError:
            half = len(batch) // 2
            if not half:
                raise
        torch.cuda.empty_cache()  # outside of the block, whose traceback holds tensors
        first = self._in_halves(batch[:half], texts[:half])
        return [*first, *self._in_halves(batch[half:], texts[half:])]


def _texts_of(scores: ScoreSet, facts: Commit) -> dict[int, _Texts]:
    """Read the texts of each sample of a shard that has any, by its index."""
    files = {file.table: file for file in facts.files}
    samples = read_data(scores.run, files["samples"], ["index", "key", "sha256"]).to_pylist()
    rows = read_data(scores.run, files["texts"], ["index", "text_no", "text"]).to_pylist()
    wanted = {}
    for index, of_sample in groupby(rows, key=itemgetter("index")):
        texts = list(of_sample)
        wanted[index] = _Texts(
            samples[index]["key"],
            samples[index]["sha256"],
            tuple(row["text_no"] for row in texts),
            tuple(row["text"] for row in texts),
        )
    return wanted


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(items, size)):
        yield batch


def _table(shard: str, scorer: str, columns: dict[str, list[Any]]) -> pa.Table:
    count = len(columns["index"])
    named = {"shard": pa.repeat(shard, count), "scorer": pa.repeat(scorer, count), **columns}
    return pa.table({field.name: pa.array(named[field.name], field.type) for field in SCORES})


def _changed(shard: InputShard, expected: str, actual: str) -> InputChanged:
    return InputChanged(
        f"input shard {shard.shard!r} ({shard.url}) changed since it was cleaned: expected "
        f"{expected}; found {actual}; restore it to score its texts. {DIVIDED_OTHERWISE}"
    )
