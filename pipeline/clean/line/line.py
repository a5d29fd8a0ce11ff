"""Three stages that overlap: decoding, the models, writing; and who passes batches between them.

    shards ─▶ Reading ─▶ batches, decoded ─▶ Line.work ─▶ batches, scored ─▶ Writing ─▶ commits
              (a thread, and those that      (the calling                    (a thread)
              decode)                        thread)

The calling thread computes and touches no file. An error in any stage is the attempt's own: what is
on its way of it is dropped, its end passes through all stages, and the last one closes it.
"""

import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.clean.batch import BatchModels
from pipeline.clean.line.attempt import GivenBack, ShardAttempt
from pipeline.clean.line.batch import Batch, Closed, Drained, Message, Written
from pipeline.clean.line.reading import Reading
from pipeline.clean.line.ring import Ring, Room
from pipeline.clean.line.upload import Upload
from pipeline.clean.line.writing import Writing
from pipeline.clean.prepare import ExecutionConfig
from shards.inputs.text import TextSource

LEAVE_S = 5.0  # that leaving waits for what is under way: an interrupt must not hang on a decoder
LAST_S = 1.0  # then, for the last files to be removed

Report = Callable[[int, int], None]


class Line:
    """Shards on their way, in the order in which they were added; ends with `end` or `drop`."""

    def __init__(
        self, models: BatchModels, pace: ExecutionConfig, text: TextSource, upload: Upload
    ) -> None:
        self._models, self._upload = models, upload
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._ready: deque[Batch | Drained] = deque()  # for the models
        self._news: deque[Written | Closed] = deque()
        self._ring, self._room = Ring(pace.batch_size, upload.pinned), Room()
        rooms = self._ring, self._room
        self._reading = Reading(models.prepare, pace, text, rooms, self._inbox.put)
        self._writing = Writing(self._room, self._inbox.put)
        self.open: deque[ShardAttempt] = deque()

    def add(self, attempt: ShardAttempt) -> None:
        """Queue a shard, behind those that are open."""
        self.open.append(attempt)
        self._reading.add(attempt)

    def work(self, report: Report) -> None:
        """Work until the first of the open shards is closed; others come along as they are ready.

        `report(samples, bytes)` is called with how far that one is, from this thread.
        """
        while True:
            item = self._next()
            if isinstance(item, Batch):
                self._compute(item)
            elif isinstance(item, Drained):
                self._writing.add(item)
            elif isinstance(item, Written):
                report(item.samples, item.offset)
            else:
                self.open.popleft()
                return

    def end(self) -> bool:
        """End the threads, once all shards are closed; whether they have ended."""
        return self._join(time.monotonic() + LEAVE_S)

    def drop(self, error: BaseException) -> bool:
        """Go no further: the first of the open shards fails with an error, others are given back.

        Returns whether all threads have ended: one may be caught in a decoder, or in a file system.
        """
        for attempt in self.open:
            attempt.fail(error)
            error = GivenBack("it was not begun in earnest")
        until = time.monotonic() + LEAVE_S
        try:
            while self.open:
                self._pass_on(self._next(max(0, until - time.monotonic())))
        except Empty:
            self._close_at_once()
        return self._join(until)

    def _close_at_once(self) -> None:
        """Close what the reading stage does not let go, which may never come back."""
        for attempt in self.open:
            self._writing.add(Drained(attempt))
        for attempt in self.open:
            if not attempt.closed.wait(LAST_S):
                attempt.record_end()
        self.open.clear()

    def _pass_on(self, item: Message) -> None:
        """Let what is on its way pass, without work."""
        if isinstance(item, Batch):
            self._give_back(item)
            self._writing.add(item)
        elif isinstance(item, Drained):
            self._writing.add(item)
        elif isinstance(item, Closed):
            self.open.popleft()

    def _join(self, until: float) -> bool:
        self._reading.end()
        self._writing.end()
        threads = self._reading.thread, self._writing.thread
        for thread in threads:
            thread.join(max(0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _next(self, timeout_s: float | None = None) -> Message:
        """Take the next message: what others have done comes first, since someone waits for it."""
        while not self._inbox.empty():
            self._sort(self._inbox.get())
        if not self._news and not self._ready:
            self._sort(self._inbox.get(timeout=timeout_s))
        return self._news.popleft() if self._news else self._ready.popleft()

    def _sort(self, item: Message) -> None:
        queue: deque[Any] = self._ready if isinstance(item, Batch | Drained) else self._news
        queue.append(item)

    def _compute(self, batch: Batch) -> None:
        """Caption and score a batch; the next one is uploaded meanwhile, if it is there."""
        attempt = batch.attempt
        try:
            if batch.buffer is not None and not attempt.stopped.done():
                views = self._upload.take(batch)
                if self._ready and isinstance(self._ready[0], Batch):
                    self._upload.begin(self._ready[0])
                shard = attempt.shard.shard
                attempt.splits += self._models.fill_in(shard, batch.pictures, views)
        except Exception as error:  # it is raised where the shard is waited for
            attempt.fail(error)
        finally:
            self._give_back(batch)
        self._writing.add(batch)

    def _give_back(self, batch: Batch) -> None:
        self._upload.forget(batch)
        if batch.buffer is not None:
            self._ring.give(batch.buffer)
        batch.buffer = None
        batch.let_go()
