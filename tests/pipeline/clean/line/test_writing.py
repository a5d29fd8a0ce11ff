"""The last stage drops what has failed, gives its room back, and closes in order."""

from queue import SimpleQueue
from typing import Any

import pytest

import pipeline.clean.line.ring
from pipeline.clean.line.attempt import ShardAttempt
from pipeline.clean.line.batch import Batch, Closed, Drained, Message, Written
from pipeline.clean.line.ring import Room
from pipeline.clean.line.writing import Writing


class Noted(ShardAttempt):
    """An attempt without a run, that notes what is asked of it."""

    def __init__(self, error: BaseException | None = None) -> None:
        anything: Any = None
        super().__init__(anything, anything)
        self.asked: list[str] = []
        self._raised = error

    def write(self, batch: Any) -> None:
        assert batch == []
        self.asked.append("write")
        if self._raised is not None:
            raise self._raised
        self.samples += 1

    def close(self, free_since: float) -> None:
        assert free_since >= 0
        self.asked.append("close")


def test_an_error_is_the_attempt_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.clean.line.ring, "MAX_WAITING_BATCHES", 2)
    said: SimpleQueue[Message] = SimpleQueue()
    room = Room()
    writing = Writing(room, said.put)
    broken, sound = Noted(OSError("full")), Noted()
    for attempt in (broken, sound):
        for offset in (100, 200):
            room.take(0)  # blocks unless what was dropped has given its room back
            writing.add(Batch(attempt, 0, offset))
        writing.add(Drained(attempt))
    writing.end()
    writing.thread.join(10)
    assert not writing.thread.is_alive()
    assert broken.asked == ["write", "close"]
    assert sound.asked == ["write", "write", "close"]
    told = [said.get_nowait() for _ in range(said.qsize())]
    assert told == [
        Closed(broken),
        Written(sound, 1, 100),
        Written(sound, 2, 200),
        Closed(sound),
    ]
    with pytest.raises(OSError, match="full"):
        broken.result()
