"""The first stage: reads shards one after the other, and has their pictures decoded, into batches.

The next shard is begun while the one before is still captioned, scored and written. One that has
lost attempts is alone on its way: whatever kills the worker must not cost another shard a life.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from queue import SimpleQueue
from threading import Thread

from pipeline.clean.line.attempt import ShardAttempt
from pipeline.clean.line.batch import Batch, Drained, Message
from pipeline.clean.line.ring import Ring, Room
from pipeline.clean.lists import reject_listed
from pipeline.clean.prepare import ExecutionConfig, Prepare, Stream, in_threads, under_guard
from pipeline.media.ahead import Stopped
from shards.inputs.opening import SampleReader, open_samples
from shards.inputs.text import TextSource


class Reading:
    """Takes attempts, and gives out their batches, then `Drained`."""

    def __init__(
        self,
        prepare: Prepare,
        pace: ExecutionConfig,
        text: TextSource,
        rooms: tuple[Ring, Room],
        give: Callable[[Message], None],
    ) -> None:
        self._prepare, self._pace, self._text = prepare, pace, text
        (self._ring, self._room), self._give = rooms, give
        self._work: SimpleQueue[ShardAttempt | None] = SimpleQueue()
        self.thread = Thread(target=self._run, name="clean-reading", daemon=True)
        self.thread.start()

    def add(self, attempt: ShardAttempt) -> None:
        """Queue a shard."""
        self._work.put(attempt)

    def end(self) -> None:
        """End the thread, behind the shards that are queued."""
        self._work.put(None)

    def _run(self) -> None:
        before: ShardAttempt | None = None
        while (attempt := self._work.get()) is not None:
            try:
                self._read(attempt, before)
            except Stopped:
                pass  # it is known why
            except BaseException as error:  # it is raised where the shard is waited for
                attempt.fail(error)
            self._give(Drained(attempt))
            before = attempt

    def _read(self, attempt: ShardAttempt, before: ShardAttempt | None) -> None:
        if attempt.stopped.done() or not attempt.look():
            return
        if before is not None and (attempt.alone or before.alone):
            before.closed.wait()
        if attempt.stopped.done():
            return
        attempt.begin()
        with open_samples(attempt.shard, self._text) as reader:
            with self._prepared(attempt, reader) as stream:
                for batch in self._gather(attempt, stream):
                    self._room.take(batch.size_bytes)
                    self._give(batch)
            attempt.has_read(reader)

    def _prepared(
        self, attempt: ShardAttempt, reader: SampleReader
    ) -> AbstractContextManager[Stream]:
        raws = reject_listed(reader, attempt.skipped)
        if attempt.safe:
            return under_guard(raws, self._prepare, self._pace)
        return in_threads(raws, self._prepare, self._pace, attempt.stopped)

    def _gather(self, attempt: ShardAttempt, stream: Stream) -> Iterator[Batch]:
        """Gather samples until a batch of pictures is full; rejected ones ride along, in order."""
        size = 1 if attempt.safe else self._pace.batch_size
        batch = Batch(attempt, 0)
        try:
            for sample, offset in stream:
                if attempt.stopped.done():
                    raise Stopped
                if sample.screened.ok and batch.buffer is None:
                    batch.buffer = self._ring.take()
                batch.add(sample, offset)
                if batch.is_full(size):
                    full, batch = batch, Batch(attempt, offset)
                    yield full
            if batch.samples:
                full, batch = batch, Batch(attempt, batch.offset)
                yield full
        finally:
            if batch.buffer is not None:
                self._ring.give(batch.buffer)
