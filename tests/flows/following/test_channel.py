"""Messages between two processes: whole, in order, and never waited for."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO

import pytest

from flows.following.channel import MOST_WAITING, Channel

SOON_S = 10


class Ends:
    """Two channels back to back, and the pipes between them."""

    def __init__(self, leaving: ExitStack) -> None:
        self.pipes: list[IO[bytes]] = []
        for _ in range(2):
            for number, mode in zip(os.pipe(), ("rb", "wb"), strict=True):
                self.pipes.append(os.fdopen(number, mode))
        to_there, from_here, to_here, from_there = self.pipes
        self.here, self.there = Channel(to_here, from_here), Channel(to_there, from_there)
        # what a channel still reads is ended by closing what is written to it
        leaving.callback(from_here.close)
        leaving.callback(from_there.close)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A command's end, and that of who reports for it."""
    with ExitStack() as leaving:
        yield Ends(leaving)


def test_messages_go_both_ways_in_order(ends: Ends) -> None:
    for number in range(50):
        ends.here.tell(progress=[number / 50, "é"])
    ends.there.tell(recorded=True)
    heard = [ends.there.take(SOON_S) for _ in range(50)]
    assert heard == [{"progress": [number / 50, "é"]} for number in range(50)]
    assert ends.here.take(SOON_S) == {"recorded": True}
    assert ends.here.take(0.01) is None


def test_who_leaves_has_hung_up_for_whoever_asks(ends: Ends) -> None:
    ends.here.tell(stage="finish", result=None)
    ends.here.flush(SOON_S)
    ends.pipes[1].close()
    assert ends.there.take(SOON_S) == {"stage": "finish", "result": None}
    assert [ends.there.take(SOON_S) for _ in range(3)] == [{}, {}, {}]
    assert ends.there.hung_up.is_set()


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_who_is_about_to_leave_has_hung_up_already(ends: Ends, how: str) -> None:
    ends.here.tell(**{how: "by Ctrl-C"})
    assert ends.there.hung_up.wait(SOON_S)
    assert ends.there.take(SOON_S) == {how: "by Ctrl-C"}


def test_half_a_line_of_somebody_who_was_killed_is_no_message(ends: Ends) -> None:
    ends.pipes[1].write(b'{"stage": "fin')
    ends.pipes[1].close()
    assert ends.there.take(SOON_S) == {}


def test_nobody_waits_for_a_reader_that_hangs() -> None:
    (from_nobody, keep_open), (unread, outgoing) = os.pipe(), os.pipe()
    channel = Channel(os.fdopen(from_nobody, "rb"), os.fdopen(outgoing, "wb"))
    began = time.monotonic()
    for _ in range(10 * MOST_WAITING):
        channel.tell(log=[20, "x" * 1000])
    channel.flush(0.1)
    assert time.monotonic() - began < SOON_S
    assert not channel.hung_up.is_set()
    os.close(unread)
    os.close(keep_open)
    assert channel.take(SOON_S) == {}
