"""Stages that a command does: waited for, heard of, and ended as the command ended."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from flows.deployable.flow_run import CommandLost, CommandStopped, StageFailed
from flows.following.channel import Channel
from flows.following.followed import Followed

SOON_S = 10


class Heard:
    """What a flow run is told meanwhile."""

    def __init__(self) -> None:
        self.shown: list[tuple[float, str]] = []
        self.logger = logging.getLogger("followed")

    def progress(self, share: float, line: str) -> None:
        self.shown.append((share, line))


class Command:
    """The command's end of a channel, and what follows it."""

    def __init__(self) -> None:
        (there, here), (back, forth) = os.pipe(), os.pipe()
        self.says = os.fdopen(here, "wb")
        self.channel = Channel(os.fdopen(back, "rb"), self.says)
        self._forth = os.fdopen(forth, "wb")
        self.followed = Followed(Channel(os.fdopen(there, "rb"), self._forth))

    def close(self) -> None:
        for pipe in (self.says, self._forth):
            with suppress(OSError):
                pipe.close()


@pytest.fixture
def command() -> Iterator[Command]:
    command = Command()
    yield command
    command.close()


def do(command: Command, run: Any = None) -> Any:
    def work() -> None:
        raise AssertionError("the command does it")

    heard: Any = run or Heard()
    return command.followed.do(heard, "clean", work)


def test_a_stage_is_heard_of_until_it_is_done(
    command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    run = Heard()
    command.channel.tell(progress=[0.5, "half"])
    command.channel.tell(log=[logging.WARNING, "a line"])
    command.channel.tell(log=["WARNING", "of no level that is known"])
    command.channel.tell(stage="clean", result={"exit_code": 3})
    with caplog.at_level(logging.INFO, "followed"):
        assert do(command, run) == {"exit_code": 3}
    assert run.shown == [(0.5, "half")]
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert levels == [("WARNING", "a line"), ("INFO", "of no level that is known")]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"stopped": "by Ctrl-C"}, CommandStopped),
        ({"failed": "the disk is full"}, StageFailed),
    ],
)
def test_the_end_of_a_command_is_that_of_the_stage(
    command: Command, message: dict[str, str], kind: type[Exception]
) -> None:
    command.channel.tell(**message)
    with pytest.raises(kind, match=next(iter(message.values()))):
        do(command)
    assert command.followed.is_over()


def test_a_command_that_says_no_more_is_lost(command: Command) -> None:
    assert not command.followed.is_over()
    command.says.close()
    with pytest.raises(CommandLost, match="the same one goes on"):
        do(command)


def test_another_stage_than_the_flow_has_is_a_bug(command: Command) -> None:
    command.channel.tell(stage="prepare", result=None)
    with pytest.raises(AssertionError, match="did prepare, expected clean"):
        do(command)


def test_what_is_done_on_the_page_is_passed_on(command: Command) -> None:
    command.followed.stop("cancelled on the page")
    command.followed.note_answer({"approve": True})
    for error in (None, ConnectionError("refused"), None, None):
        command.followed.note_server(error)
    command.followed.stop("again")
    told = [command.channel.take(SOON_S) for _ in range(5)]
    assert told == [
        {"stop": "cancelled on the page"},
        {"answer": {"approve": True}},
        {"trouble": "Prefect's server does not answer: refused"},
        {"trouble": ""},
        {"stop": "again"},
    ]
