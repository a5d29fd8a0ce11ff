"""The stages of a flow run that a command does: here they are only waited for."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

from flows.deployable.flow_run import CommandLost, CommandStopped, FlowRun, Result, StageFailed
from flows.following.channel import Channel, Message


class Followed:
    """Follows a command over a channel; see `Doer`."""

    patience = 1  # no runner of Prefect's knows of a command

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._silent = False

    def do(self, run: FlowRun, name: str, work: Callable[[], Result]) -> Result:  # noqa: ARG002 - done elsewhere
        """Wait until the command has done the stage.

        Raises StageFailed where it failed, CommandStopped and CommandLost.
        """
        while True:
            message = self._channel.take()
            assert message is not None  # no time-out was given
            if not message:
                raise CommandLost(
                    "the command is gone without a word, killed most likely; the same one goes on"
                )
            if "stage" not in message:
                _hear(run, message)
            elif message["stage"] == name:
                return cast("Result", message["result"])
            else:
                raise AssertionError(f"the command did {message['stage']}, expected {name}")

    def stop(self, why: str) -> None:
        """Let the command hear SIGTERM."""
        self._channel.tell(stop=why)

    def is_over(self) -> bool:
        """Whether the command has ended, or is ending."""
        return self._channel.hung_up.is_set()

    def note_answer(self, answer: Mapping[str, Any]) -> None:
        """Pass on what a person has answered."""
        self._channel.tell(answer=dict(answer))

    def note_server(self, error: Exception | None) -> None:
        """Pass on that the server does not answer, or does so again."""
        if error is not None:
            self._channel.tell(trouble=f"Prefect's server does not answer: {error}")
        elif self._silent:
            self._channel.tell(trouble="")
        self._silent = error is not None


def _hear(run: FlowRun, message: Message) -> None:
    """Hear what is no end of a stage."""
    if "progress" in message:
        run.progress(*message["progress"])
    elif "log" in message:
        level, line = message["log"]
        run.logger.log(level if isinstance(level, int) else logging.INFO, line)
    elif "stopped" in message:
        raise CommandStopped(message["stopped"])
    elif "failed" in message:
        raise StageFailed(message["failed"])
