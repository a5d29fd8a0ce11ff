"""How a command is followed by Prefect: it tells another process what it does, and never waits.

That process has Prefect, its server and the flow run; this one has the work. A server that is
dead, hangs, is slow or absent, and the death of that process, cost the work nothing.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flows.extras import is_installed
from flows.following.channel import Channel, Message
from flows.run_log.events import heard_by
from flows.run_log.lines import Lines
from flows.run_log.redaction import Redactor, secrets_of
from flows.stages.summary import Summary

GRACE_S = 8.0  # that an end may take to be recorded
TOLD_EVERY_S = 2.0  # of progress

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Stage:
    """A stage under way; the last one's result is the summary of all."""

    result: Summary | str | None = None


class Reporter(Protocol):
    """Hears what a command does, and may pass on what people answer elsewhere."""

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Begin the flow run, with the parameters of the flow."""

    def nothing_to_do(self) -> None:
        """Hear that all was done before: such an end is worth no wait."""

    def stage(self, name: str) -> Any:  # noqa: ANN401 - a context
        """Report a stage, which lasts as long as the block; what it raises goes on."""

    def progress(self, share: float, line: str) -> None:
        """Report how far a stage is."""

    def answer(self) -> Mapping[str, Any] | None:
        """Return what a person has answered on Prefect's page, once."""

    def is_alive(self) -> bool:
        """Whether a person could answer there."""


class Unreported:
    """Reports to nobody."""

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Do nothing."""

    def nothing_to_do(self) -> None:
        """Do nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:  # noqa: ARG002 - nobody hears it
        """Do nothing."""
        yield Stage()

    def progress(self, share: float, line: str) -> None:
        """Do nothing."""

    def answer(self) -> None:
        """Return none."""

    def is_alive(self) -> bool:
        """Nobody is there."""
        return False


class PrefectReporter:
    """Reports to a flow run, by way of another process."""

    def __init__(self, flow: str) -> None:
        """Start that process at once: its server takes seconds, which the command needs too."""
        self._flow = flow
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.following.follower"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to hear; it is told what comes of it
        )
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._channel = Channel(self._process.stdout, self._process.stdin)
        self._begun = self._warned = self._is_idle = False
        self._trouble, self._noting = "", threading.Lock()
        self._answer: Mapping[str, Any] | None = None
        self._latest: list[Any] = []
        self._recorded, self._told_at = threading.Event(), 0.0
        self._listening = ExitStack()
        threading.Thread(target=self._listen, name="reporter", daemon=True).start()

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Begin the flow run; what our loggers say stands in its log."""
        self._begun = True
        self._note_trouble(self._trouble)  # what has come before was not told yet
        self._channel.tell(flow=self._flow, parameters=parameters)
        lines = Lines(lambda level, line: self._channel.tell(log=[level, line]))
        self._listening.enter_context(heard_by(lines))

    def nothing_to_do(self) -> None:
        """Hear that all was done before; a server that people have set is told all the same."""
        self._is_idle = not is_server_set()

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Report a stage; what it raises goes on."""
        stage, self._latest = Stage(), []
        yield stage
        if self._latest:
            self._channel.tell(progress=self._latest)
        self._channel.tell(stage=name, result=stage.result)

    def progress(self, share: float, line: str) -> None:
        """Report how far a stage is, now and then."""
        now, self._latest = time.monotonic(), [share, line]
        if now - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            self._channel.tell(progress=self._latest)

    def answer(self) -> Mapping[str, Any] | None:
        """Return what a person has answered on Prefect's page, once."""
        answer, self._answer = self._answer, None
        return answer

    def is_alive(self) -> bool:
        """Whether a person could answer there."""
        return not self._trouble and self._process.poll() is None

    def close(self, error: BaseException | None = None) -> None:
        """Report the end, leave a moment for it to be recorded, and let the other process go."""
        self._listening.close()
        if error is not None:
            self._channel.tell(**_as_message(error))
        elif self._is_idle:
            self._recorded.set()  # a flow run that has begun over there ends without us
        # whatever trouble there was: the server may answer again
        if self._begun and not self._recorded.wait(GRACE_S):
            self._note_trouble(
                "Prefect did not record the end in time, and may show this run as running",
                "nothing else is missing",
            )
        self._channel.flush(0.2)
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()  # it ends by that, with its server
        if not (self._begun and self._recorded.is_set()):
            self._process.kill()

    def _listen(self) -> None:
        while message := self._channel.take():
            self._hear(message)
        if not self._recorded.is_set():
            self._note_trouble("the process that reports to Prefect has ended")
        self._recorded.set()

    def _hear(self, message: Message) -> None:
        if "recorded" in message or "ended" in message:  # it ends if we were there too briefly
            self._recorded.set()
        elif "answer" in message:
            self._answer = message["answer"]
        elif "trouble" in message:
            self._note_trouble(Redactor()(message["trouble"]))  # an address may have a password
        elif "stop" in message:
            _log.warning("%s: stopping", message["stop"])
            os.kill(os.getpid(), signal.SIGTERM)

    def _note_trouble(self, trouble: str, rest: str = "the work is done without it") -> None:
        """Warn of the first trouble, once, once there is a flow run to miss; empty is none now."""
        with self._noting:
            self._trouble = trouble and (self._trouble or trouble)
            if self._begun and self._trouble and not self._warned:
                self._warned = True
                _log.warning("%s; %s", self._trouble, rest)


@contextmanager
def reporting(flow: str, direct: bool) -> Iterator[PrefectReporter | Unreported]:
    """Let Prefect follow the block, unless it is to be done directly, or Prefect is missing."""
    if direct:
        yield Unreported()
        return
    if not is_installed("prefect"):
        advice = "as with --direct (pip install 'capfilt[prefect]')"
        print(f"Prefect is not installed: {advice}", file=sys.stderr)  # noqa: T201 - once a command
        yield Unreported()
        return
    reporter = PrefectReporter(flow)
    try:
        yield reporter
    except BaseException as error:
        reporter.close(error)
        raise
    reporter.close()


def is_server_set() -> bool:
    """Whether Prefect is told of a server, so far as can be seen without loading it."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    try:
        profiles = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
        active = os.environ.get("PREFECT_PROFILE") or profiles["active"]
        return "PREFECT_API_URL" in profiles["profiles"][active]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _as_message(error: BaseException) -> dict[str, str]:
    """Tell a stop from a failure."""
    if isinstance(error, KeyboardInterrupt):
        return {"stopped": "stopped by Ctrl-C; the same command goes on"}
    if isinstance(error, SystemExit):
        return {"stopped": "stopped by SIGTERM; the same command goes on"}
    return {"failed": Redactor(secrets_of(()))(str(error) or type(error).__name__)}
