"""Screen shards without a model: what can be read, what its hashes are, and nothing more.

Such a run is for counting, and for finding the same pictures before a model's time is paid for.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.clean.export import WriteConfig
from pipeline.clean.judge import JudgeConfig
from pipeline.clean.line.attempt import LOST, AttemptLost, ShardAttempt, Target
from pipeline.clean.line.batch import MAX_BATCH_ROWS
from pipeline.clean.lists import BlockList, reject_listed
from pipeline.clean.prepare import ExecutionConfig, PreparedSample, in_threads, under_guard
from pipeline.clean.screen import Decode, ScreenConfig, screen
from shards.inputs.opening import open_samples
from shards.inputs.reader import RawSample
from shards.inputs.shard import InputShard
from shards.inputs.text import text_source
from shards.run.attempt import Quarantine
from shards.run.commit import Commit, FilesGone
from shards.run.run import Run

_log = logging.getLogger(__name__)

HASHED_SIDE = 384  # pixels: JPEGs are decoded no larger than a hash and a check of the picture need

Report = Callable[[int, int], None]  # hears samples and bytes done


class ShardScreener:
    """Screens shards of one run, as ShardCleaner cleans them."""

    def __init__(
        self,
        run: Run,
        config: ScreenConfig,
        pace: ExecutionConfig,
        about: Mapping[str, Any],
        worker: str | None = None,
    ) -> None:
        """Make a screener; `about` describes the machine, `worker` names who works."""
        self._target = Target(run, JudgeConfig(), WriteConfig(clean="none"), 0, worker, about)
        self._config, self._pace = config, pace
        self._blocked = BlockList.of_run(run)

    def expect(self, shard: InputShard | None) -> None:
        """Hear which shard is next; nothing is read ahead of its turn."""

    def close(self) -> bool:
        """End; no thread is left behind."""
        return True

    def clean(self, shard: InputShard, report: Report) -> Commit | Quarantine:
        """Screen one shard and commit it; raises as ShardCleaner does."""
        try:
            return self._screen(shard, report)
        except FilesGone as error:  # this process was frozen for long, and its files taken for dead
            _log.warning("%s", error)
            return self._screen(shard, report)

    def _screen(self, shard: InputShard, report: Report) -> Commit | Quarantine:
        attempt = ShardAttempt(self._target, shard)
        try:
            if attempt.look():
                attempt.begin()
                self._fill(attempt, report)
        except BaseException as error:
            attempt.fail(error)
        attempt.close(0.0)
        try:
            return attempt.result()
        except LOST as error:
            raise AttemptLost(f"shard {shard.shard}: {error}") from error

    def _fill(self, attempt: ShardAttempt, report: Report) -> None:
        batch: list[PreparedSample] = []
        with open_samples(attempt.shard, text_source(self._target.run.identity)) as reader:
            raws = reject_listed(reader, attempt.skipped)
            prepared = under_guard if attempt.safe else in_threads
            with prepared(raws, self._prepare, self._pace) as stream:
                for sample, offset in stream:
                    batch.append(sample)
                    if len(batch) == MAX_BATCH_ROWS:
                        attempt.write(batch)
                        batch = []
                    report(attempt.samples + len(batch), offset)
            attempt.write(batch)
            attempt.has_read(reader)

    def _prepare(self, raw: RawSample, decode: Decode) -> PreparedSample:
        screened = screen(raw, self._config, decode, wanted_side=HASHED_SIDE, blocked=self._blocked)
        screened.image, screened.original = None, b""
        return PreparedSample(screened)
