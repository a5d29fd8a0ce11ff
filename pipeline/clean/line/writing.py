"""The last stage: judges, writes rows and tar, and commits, in the order of the work."""

import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from pipeline.clean.line.batch import Batch, Closed, Drained, Message, Written
from pipeline.clean.line.ring import Room


class Writing:
    """Takes batches and `Drained`; gives out what is `Written` and `Closed`."""

    def __init__(self, room: Room, give: Callable[[Message], None]) -> None:
        self._room, self._give = room, give
        self._work: SimpleQueue[Batch | Drained | None] = SimpleQueue()
        self.thread = Thread(target=self._run, name="clean-writing", daemon=True)
        self.thread.start()

    def add(self, item: Batch | Drained) -> None:
        """Queue a batch, or the end of its shard."""
        self._work.put(item)

    def end(self) -> None:
        """End the thread, behind what is queued."""
        self._work.put(None)

    def _run(self) -> None:
        free_since = 0.0
        while (item := self._work.get()) is not None:
            if isinstance(item, Batch):
                self._write(item)
            else:
                item.attempt.close(free_since)
                free_since = time.monotonic()
                self._give(Closed(item.attempt))
            del item  # a thread that waits holds no picture

    def _write(self, batch: Batch) -> None:
        attempt = batch.attempt
        try:
            if not attempt.stopped.done():
                attempt.write(batch.samples)
                self._give(Written(attempt, attempt.samples, batch.offset))
        except BaseException as error:  # it is raised where the shard is waited for
            attempt.fail(error)
        finally:
            self._room.give(batch.size_bytes)
