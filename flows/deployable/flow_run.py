"""What each flow run has around its stages: tasks, log, progress, a cancel heard, an end."""

import contextvars
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from pathlib import PurePath
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, TypeVarTuple, cast
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.runtime import flow_run as this_run
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows.run_log.events import heard_by
from flows.run_log.lines import Lines
from flows.run_log.redaction import Redactor, secrets_of
from flows.stages.summary import Summary
from shards.errors import CapfiltError

LOOK_EVERY_S = 5.0
RETRIES, RETRY_DELAYS_S = 2, [30.0, 300.0]  # of a stage that lost its machines or its network

Result = TypeVar("Result")
Given = TypeVarTuple("Given")


class CommandStopped(Exception):  # noqa: N818 - what happened, no error of ours
    """The command that does the work was told to stop, and did."""


class CommandLost(Exception):  # noqa: N818 - what happened, no error of ours
    """The command that did the work is gone without a word."""


class StageFailed(CapfiltError, RuntimeError):  # noqa: N818 - reads as what happened
    """A stage that a command did, and that failed there."""


class Doer(Protocol):
    """Who does the stages: this process, or a command that the flow run follows."""

    patience: int  # looks at a cancel before it is acted upon: a runner of Prefect's may do so

    def do(self, run: "FlowRun", name: str, work: Callable[[], Result]) -> Result:
        """Do a stage, or wait until it is done elsewhere; return what it came to."""

    def stop(self, why: str) -> None:
        """Stop the work, as by SIGTERM."""

    def is_over(self) -> bool:
        """Whether nobody waits for the flow run any more."""

    def note_answer(self, answer: Mapping[str, Any]) -> None:
        """Hear what a person has answered on the page."""

    def note_server(self, error: Exception | None) -> None:
        """Hear how the server took a look at the run: it answered, or it did not."""


class Here:
    """Does the stages in the process of the flow run itself."""

    patience = 2

    def do(self, run: "FlowRun", name: str, work: Callable[[], Result]) -> Result:  # noqa: ARG002 - as one that follows
        """Do it."""
        return work()

    def stop(self, why: str) -> None:  # noqa: ARG002 - the page says why
        """Let this process hear SIGTERM."""
        os.kill(os.getpid(), signal.SIGTERM)

    def is_over(self) -> bool:
        """Never: who ends the flow run ends this process."""
        return False

    def note_answer(self, answer: Mapping[str, Any]) -> None:
        """Do nothing: the next stage is given the answer."""

    def note_server(self, error: Exception | None) -> None:
        """Log that it does not answer; the work does not wait for it."""
        if error is not None:
            logging.getLogger(__name__).info("Prefect's server does not answer: %s", error)


doer: ContextVar[Doer] = ContextVar("doer")


class FlowRun:
    """The flow run of this block: its stages are tasks, and how it ends is its `state`.

    A failure that is expected ends it as failed, by its message; a bug is raised.
    """

    def __init__(self, flow: str) -> None:
        self.flow, self.logger = flow, get_run_logger()
        self.state: State[Any] | None = None
        self.doer = doer.get(Here())
        self._watch = _Watch(self)
        self._listening = ExitStack()

    def __enter__(self) -> Self:
        """Watch for a cancel; what our loggers say goes to the flow run's log."""
        self._listening.enter_context(heard_by(Lines(self.logger.log)))
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Make a state of how the block ended."""
        self._watch.end()
        self._listening.close()
        if error is None:
            return True
        self.state = self._state_of(error)
        if self.state is None:
            return False
        code = getattr(type(error), "exit_code", 1)
        self._emit("failed", {"exit_code": code}, _told(error))
        return True

    def stage(self, name: str, function: Callable[[*Given], Result], *arguments: *Given) -> Result:
        """Do a stage as a task of this name; one that lost its machines is tried again."""
        expected: list[Exception] = []

        def work() -> Any:  # noqa: ANN401 - as the function has it
            try:
                return self.doer.do(self, name, lambda: function(*arguments))
            except Exception as error:
                if not _is_expected(error) or _may_pass(error):
                    raise
                expected.append(error)
                return Failed(message=_told(error))  # without a traceback in the log

        as_task = task(
            name=name,
            retries=RETRIES,
            retry_delay_seconds=RETRY_DELAYS_S,
            retry_condition_fn=_is_worth_a_retry,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(work)
        result = as_task()
        for error in expected:
            raise error
        return cast("Result", result)

    def progress(self, share: float, line: str) -> None:
        """Show how far the stage is; the page has it within seconds."""
        self._watch.heard = (share, line)

    def end(self, summary: Summary) -> None:
        """Show what the flow run came to, and tell it as an event."""
        rows = [{"number": name, "value": value} for name, value in summary["numbers"].items()]
        with suppress(Exception):  # a server that fails now takes nothing from what is done
            create_table_artifact(rows, key=f"{self.flow}-numbers", description=summary["message"])
            self._show_report(summary["run"])
        failed = summary["exit_code"] not in (0, 3)
        self._emit("failed" if failed else "finished", dict(summary), summary["message"])
        make = Failed if failed else Completed
        self.state = make(message=summary["message"])

    def _show_report(self, run: str) -> None:
        if not run:
            return
        report = f"{run.rstrip('/')}/report/index.html"
        served = report.startswith(("http://", "https://"))
        text = f"[report]({report})" if served else f"`{report}`"
        create_markdown_artifact(
            f"The report, as `capfilt report {run}` writes it: {text}",
            key=f"{self.flow}-report",
        )

    def _emit(self, how: str, payload: Mapping[str, Any], message: str) -> None:
        output = str(payload.get("output") or this_run.parameters.get("output", ""))
        with suppress(Exception):
            emit_event(
                f"capfilt.{self.flow}.{how}",
                resource={
                    "prefect.resource.id": f"capfilt.run.{resource_name(output)}",
                    "prefect.resource.name": output,
                },
                payload={
                    "output": output,
                    "input": this_run.parameters.get("input"),
                    "message": message,
                    **payload,
                },
            )

    def _state_of(self, error: BaseException) -> "State[Any] | None":
        if isinstance(error, CommandStopped):
            return Cancelled(message=str(error))
        if isinstance(error, CommandLost):
            return Crashed(message=str(error))
        if isinstance(error, Exception):
            return Failed(message=_told(error)) if _is_expected(error) else None
        if self._watch.is_cancelled():
            return Cancelled(
                message="cancelled; what is committed is kept, and a run goes on by it"
            )
        return None


def name_run() -> str:
    """Name a flow run by its folder and its recipe."""
    output, recipe = (str(this_run.parameters.get(name) or "") for name in ("output", "recipe"))
    return f"{this_run.flow_name} {dated(output)}" + (
        f" by {PurePath(recipe).name}" if recipe else ""
    )


def dated(text: str) -> str:
    """Put the day and the time that a run was to start into its `{date}` and `{time}`.

    A scheduled run has that in common with each new try of it.
    """
    start = this_run.scheduled_start_time
    return text.replace("{date}", f"{start:%Y-%m-%d}").replace("{time}", f"{start:%Y-%m-%dT%H%M%S}")


def resource_name(output: str) -> str:
    """Name a run folder in an event, as automations match it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", output).strip("-") or "unnamed"


class _Watch:
    """Looks at the flow run every few seconds, in a thread: a server that hangs holds up nothing.

    Prefect tells of a cancel only the runs of a runner that has never lost its server.
    """

    def __init__(self, run: FlowRun) -> None:
        self.heard: tuple[float, str] | None = None
        self._run, self._id = run, UUID(this_run.get_id())
        self._over = threading.Event()
        self._shown: tuple[float, str] | None = None
        self._artifact: UUID | None = None
        context = contextvars.copy_context()  # an artifact belongs to this flow run
        self._thread = threading.Thread(target=context.run, args=(self._look_on,), daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Look no more, but show how far it came."""
        self._over.set()
        self._thread.join(2)

    def is_cancelled(self) -> bool:
        """Ask whether somebody wants the run to end; no answer is no."""
        with suppress(Exception), get_client(sync_client=True) as client:
            state = client.read_flow_run(self._id).state
            return state is not None and (state.is_cancelling() or state.is_cancelled())
        return False

    def _look_on(self) -> None:
        seen = 0
        while not self._over.wait(LOOK_EVERY_S):
            try:
                with get_client(sync_client=True) as client:
                    state = client.read_flow_run(self._id).state
                self._show()
            except Exception as error:
                self._run.doer.note_server(error)
                continue
            self._run.doer.note_server(None)
            wanted = state is not None and (state.is_cancelling() or state.is_cancelled())
            seen = seen + 1 if wanted else 0
            if seen == self._run.doer.patience:
                self._run.doer.stop("cancelled on Prefect's page")
        with suppress(Exception):
            self._show()

    def _show(self) -> None:
        if self.heard is None or self.heard == self._shown:
            return
        share, line = self._shown = self.heard
        percent = round(100 * min(share, 1.0), 1)
        if self._artifact is None:
            key = f"{self._run.flow}-progress"
            made = create_progress_artifact(percent, key=key, description=line)
            assert isinstance(made, UUID)  # and no coroutine, in a thread without a loop
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent, description=line)


def _told(error: BaseException) -> str:
    """Say what an error says, but for secrets: the page has other readers than the terminal."""
    return Redactor(secrets_of(()))(str(error) or type(error).__name__)


def _is_expected(error: BaseException) -> bool:
    return hasattr(type(error), "exit_code") or isinstance(error, OSError)


def _may_pass(error: BaseException) -> bool:
    """Whether the same stage may go better in a while: machines come back, and networks."""
    from flows.engines.engine import EngineError

    return isinstance(error, EngineError | OSError) and not isinstance(error, StageFailed)


def _is_worth_a_retry(_task: Any, _run: Any, state: State[Any]) -> bool:  # noqa: ANN401 - Prefect's
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and _may_pass(error)
