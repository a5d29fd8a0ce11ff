"""Clean one shard: read, screen, caption, score, judge, export, commit.

Each model sees a picture once. Rows are written in the order of the input, whatever the batches
were. A shard whose attempts are lost again and again is done in safe mode: one sample at a time,
its picture decoded in a child process.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from models.captioners.captioner import Captioner, PixelCaptioner
from models.scorers.scorer import PixelScorer, Scorer
from pipeline.clean.batch import BatchModels
from pipeline.clean.caption import NamedCaptioner
from pipeline.clean.config import CleanConfig
from pipeline.clean.line.attempt import LOST, AttemptLost, GivenBack, ShardAttempt, Target
from pipeline.clean.line.line import Line, Report
from pipeline.clean.line.upload import Upload
from pipeline.clean.lists import BlockList
from pipeline.clean.prepare import ExecutionConfig
from pipeline.clean.score import as_named
from shards.inputs.candidates import open_candidates
from shards.inputs.shard import InputShard
from shards.inputs.text import text_source
from shards.run.attempt import Quarantine
from shards.run.commit import Commit, FilesGone
from shards.run.run import Run

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


class ShardCleaner:
    """Cleans shards of one run with models that are loaded once.

    One thread cleans; others may say meanwhile what comes next.
    """

    def __init__(
        self,
        run: Run,
        config: CleanConfig,
        captioners: Sequence[Captioner | PixelCaptioner],
        scorers: Sequence[Scorer | PixelScorer],
        pace: ExecutionConfig,
        hardware: Mapping[str, Any] | None = None,
        *,
        device: "torch.device | None" = None,
        worker: str | None = None,
    ) -> None:
        """Make a cleaner; captioners and scorers stand as in the config.

        `hardware` describes the models' `device`, for the commits; `worker` names who works, for
        the records of the attempts.
        """
        about = {**(hardware or {"device": "cpu"}), "dtype": config.dtype}
        about["batch_size"] = pace.batch_size
        self._target = Target(run, config.judge, config.write, config.seed, worker, about)
        written = [
            NamedCaptioner(section.name, section.candidates, captioner)
            for section, captioner in zip(config.captioners, captioners, strict=True)
        ]
        named = as_named([section.name for section in config.scorers], scorers)
        candidates = open_candidates(run.store, run.identity)
        blocked = BlockList.of_run(run)
        self._models = BatchModels(written, named, config.screen, config.write, candidates, blocked)
        self._pace, self._upload = pace, Upload(device)
        self._lock = threading.RLock()
        self._line: Line | None = None
        self._next: InputShard | None = None
        self._current: ShardAttempt | None = None
        self._is_whole = True

    def expect(self, shard: InputShard | None) -> None:
        """Say which shard is cleaned next, so that it is read and decoded ahead; None takes back.

        Another thread may say so while one cleans.
        """
        with self._lock:
            self._next = shard
            if self._line is None:
                return
            if shard is None and self._current is None:
                self._drop(GivenBack("another is to do it"))
            elif shard is None:
                for one in [one for one in self._line.open if one is not self._current]:
                    one.fail(GivenBack("another is to do it"))
            elif self._current is not None:
                self._add_next(self._line)

    def clean(self, shard: InputShard, report: Report) -> Commit | Quarantine:
        """Clean one shard and commit it; if another driver was first, return that one's commit.

        `report(samples, bytes)` is called with how far it is. Too many attempts that were lost lead
        to safe mode, and at last to quarantine. Raises InputChanged if the shard is not the one
        that was listed, AttemptLost if another attempt may do better, and FilesGone if what was
        written went away twice.
        """
        try:
            return self._clean(shard, report)
        except FilesGone as error:  # this process was frozen for long, and its files taken for dead
            _log.warning("%s", error)
            return self._clean(shard, report)

    def close(self) -> bool:
        """Give back what was begun ahead; whether all threads have ended, now and before."""
        self.expect(None)
        return self._is_whole

    def _clean(self, shard: InputShard, report: Report) -> Commit | Quarantine:
        line, attempt = self._begin(shard)
        try:
            line.work(report)
            return attempt.result()
        except BaseException as error:
            # an error of its own leaves nothing to be told to it, but the others go, too
            self._drop(GivenBack(f"after {shard.shard}") if attempt.closed.is_set() else error)
            if isinstance(error, LOST):
                raise AttemptLost(f"shard {shard.shard}: {error}") from error
            raise
        finally:
            self._end()

    def _begin(self, shard: InputShard) -> tuple[Line, ShardAttempt]:
        with self._lock:
            first = self._line.open[0] if self._line is not None else None
            if first is not None and (first.shard != shard or first.is_given_back):
                self._drop(GivenBack("another shard came first"))
            if self._line is None:
                text = text_source(self._target.run.identity)
                self._line = Line(self._models, self._pace, text, self._upload)
                self._line.add(ShardAttempt(self._target, shard))
            self._current = self._line.open[0]
            self._add_next(self._line)
            return self._line, self._current

    def _add_next(self, line: Line) -> None:
        if self._next is not None and all(one.shard != self._next for one in line.open):
            line.add(ShardAttempt(self._target, self._next))
        self._next = None

    def _end(self) -> None:
        """End the threads, unless the next shard is under way."""
        with self._lock:
            self._current = None
            if self._line is not None and not self._line.open:
                self._is_whole &= self._line.end()
                self._line = None

    def _drop(self, error: BaseException) -> None:
        with self._lock:
            line, self._line = self._line, None
            if line is not None:
                self._is_whole &= line.drop(error)
