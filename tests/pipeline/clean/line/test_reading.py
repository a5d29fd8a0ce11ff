"""The first stage: batches in the order of the input, the next shard ahead, a lost one alone."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from pipeline.clean.line.attempt import GivenBack, ShardAttempt, Target
from pipeline.clean.line.batch import Batch, Drained, Message
from pipeline.clean.line.reading import Reading
from pipeline.clean.line.ring import BUFFERS, Ring, Room
from pipeline.clean.prepare import ExecutionConfig, PreparedSample
from pipeline.clean.screen import Decode, ScreenConfig, screen
from shards.inputs.reader import RawSample
from shards.inputs.text import TXT
from shards.run.attempt import read_attempts, start_attempt
from shards.run.run import Run
from tests.support.bench import Bench

Step = tuple[str, int]


class Stage:
    """The stage under test, and who takes what it gives."""

    def __init__(self, bench: Bench, run: Run) -> None:
        self._target = Target(run, bench.config.judge, bench.config.write, 0, None, {})
        self._run, self._resize = run, bench.scorer.preprocess.resize
        self.inbox: SimpleQueue[Message] = SimpleQueue()
        self.ring, self.room = Ring(4), Room()
        pace = ExecutionConfig(batch_size=4)
        rooms = self.ring, self.room
        self.reading = Reading(self._prepare, pace, TXT, rooms, self.inbox.put)

    def _prepare(self, raw: RawSample, decode: Decode) -> PreparedSample:
        screened = screen(raw, ScreenConfig(), decode)
        views = () if screened.image is None else (self._resize(screened.image),)
        return PreparedSample(screened, views)

    def add(self, number: int) -> ShardAttempt:
        attempt = ShardAttempt(self._target, self._run.inputs[number])
        self.reading.add(attempt)
        return attempt

    def take(self, timeout_s: float = 20) -> Message:
        item = self.inbox.get(timeout=timeout_s)
        if isinstance(item, Batch):
            self.room.give(item.size_bytes)
            if item.buffer is not None:
                self.ring.give(item.buffer)
        return item

    def drain(self) -> list[Batch]:
        """Take batches until the end of the shard."""
        batches = []
        while isinstance(item := self.take(), Batch):
            batches.append(item)
        assert isinstance(item, Drained)
        return batches


@pytest.fixture
def run(bench: Bench, members: Any, tar_of: Any) -> Run:
    inputs: list[Path] = [bench.put(f"{n:05}", tar_of(members)) for n in range(2)]
    return bench.run(*inputs)[0]


@pytest.fixture
def stage(bench: Bench, run: Run) -> Iterator[Stage]:
    stage = Stage(bench, run)
    yield stage
    stage.reading.end()
    stage.reading.thread.join(10)
    assert not stage.reading.thread.is_alive()


def begun(run: Run) -> list[str]:
    return [shard for shard in run.shards if read_attempts(run, shard)]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def test_batches_hold_all_samples_in_order(stage: Stage) -> None:
    stage.add(0)
    batches = stage.drain()
    indices = [one.screened.facts["index"] for batch in batches for one in batch.samples]
    assert indices == list(range(23))
    assert [len(batch.pictures) for batch in batches] == [4] * 5
    assert [batch.offset for batch in batches] == sorted(batch.offset for batch in batches)


def test_the_next_shard_is_begun_before_the_first_is_closed(stage: Stage, run: Run) -> None:
    first = stage.add(0)
    stage.add(1)
    stage.drain()
    assert len(stage.drain()) == 5
    assert begun(run) == list(run.shards)
    assert not first.closed.is_set()


def test_no_more_is_read_than_there_are_buffers(stage: Stage, run: Run) -> None:
    stage.add(0)
    stage.add(1)
    wait_for(lambda: stage.inbox.qsize() == BUFFERS)
    time.sleep(0.1)
    assert stage.inbox.qsize() == BUFFERS
    assert begun(run) == [run.shards[0]]
    stage.drain()
    stage.drain()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_shard_with_losses_is_alone(stage: Stage, run: Run, lost: int) -> None:
    start_attempt(run, run.shards[lost])
    first = stage.add(0)
    second = stage.add(1)
    stage.drain()
    with pytest.raises(Empty):
        stage.take(0.2)
    first.closed.set()
    stage.drain()
    assert second.alone is (lost == 1)
    assert [len(read_attempts(run, shard)) for shard in run.shards] == [2 - lost, 1 + lost]


def test_one_that_is_stopped_ends_at_once_and_keeps_no_buffer(stage: Stage) -> None:
    first = stage.add(0)
    stage.take()
    first.fail(GivenBack())
    assert len(stage.drain()) <= BUFFERS
    for _ in range(BUFFERS):
        stage.ring.take()


def test_an_error_ends_the_shard_alone(stage: Stage, run: Run) -> None:
    Path(run.inputs[0].url).unlink()
    first = stage.add(0)
    stage.add(1)
    assert stage.drain() == []
    with pytest.raises(FileNotFoundError):
        first.result()
    assert len(stage.drain()) == 5
