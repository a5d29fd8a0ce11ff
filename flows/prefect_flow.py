"""The work as Prefect sees it: a flow run that follows it, on a server that may die.

Prefect tells people what happens; it never decides what is done. So the work stays in the main
thread, and the flow run follows it in another, one task a stage. A dead server stalls that thread
alone (each call is tried again with growing pauses, and each event still queued costs 21 s at
exit): the process leaves by the commits soon after its last stage, whatever Prefect does.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.ending import leave
from flows.stages.clean import CleanJob, RunListener, RunResult, clean_shards, finish

GRACE_S = 4.0  # that Prefect has to record an end, and again to let the process go
START_S = 90.0  # that it has to begin, at most; it gives up by itself, and mostly before
PAUSE_S = 30 * 24 * 3600  # that a person has to answer
POLL_S = 2

_log = logging.getLogger(__name__)
Conclude = Callable[[RunResult | Exception], int]


def run_with_prefect(job: CleanJob, watch: RunListener, conclude: Conclude) -> int:
    """Run the stages of a cleaning, followed by a Prefect flow run; return the exit code.

    `conclude` tells the user what the run came to, and makes the exit code of it.
    """
    with report_to_prefect("clean", job.recipe.model_dump(mode="json")) as follower:
        try:
            with follower.stage("clean the shards"):
                work = clean_shards(job, watch)
            with follower.stage("finish") as shown:
                outcome = finish(job, work)
                shown.markdown = _as_markdown(outcome)
        except Exception as error:
            follower.end(str(error), failed=True)
            return follower.leave(conclude(error))
        message = f"exit code {outcome.exit_code}: {outcome.run_url}"
        follower.end(message, failed=outcome.exit_code == 1)
        return follower.leave(conclude(outcome))


@dataclass(slots=True)
class StageReport:
    """A stage under way; at its end Prefect shows `markdown`, or the `error` that it failed by."""

    name: str
    markdown: str = ""
    error: str = ""
    over: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class _Pause:
    """A question to a person, who answers by resuming the flow run."""

    key: str
    answered: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _End:
    message: str
    failed: bool


class PrefectReporter:
    """Reports what happens to a Prefect flow run, which may be lost at any time."""

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self._name, self._parameters = name, dict(parameters)
        self._events: queue.SimpleQueue[StageReport | _Pause | _End] = queue.SimpleQueue()
        self._begun, self._ended = threading.Event(), False
        self._run_id: UUID | None = None
        self._thread = threading.Thread(target=self._follow, name="prefect", daemon=True)
        self._thread.start()
        self._begun.wait(START_S)

    def is_alive(self) -> bool:
        """Whether the flow run still follows."""
        return self._run_id is not None and self._thread.is_alive()

    @contextmanager
    def stage(self, name: str) -> Iterator[StageReport]:
        """Report a stage; what it raises goes on."""
        stage = StageReport(name)
        self._events.put(stage)
        try:
            yield stage
        except BaseException as error:
            stage.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            stage.over.set()

    @contextmanager
    def pause(self, key: str) -> Iterator[threading.Event]:
        """Pause the flow run; the event says that a person has resumed it."""
        pause = _Pause(key)
        self._events.put(pause)
        try:
            yield pause.answered
        finally:
            pause.over.set()
            run_id = self._run_id
            # answered elsewhere, or not at all
            if run_id and self.is_alive() and not pause.answered.is_set():
                resume = threading.Thread(
                    target=_resume, args=(run_id,), name="resume", daemon=True
                )
                resume.start()

    def end(self, message: str, failed: bool) -> None:
        """Report the end, and leave Prefect a moment to record it."""
        if self._ended:
            return
        self._ended = True
        self._events.put(_End(message, failed))
        self._thread.join(GRACE_S)
        if self._thread.is_alive():
            _log.warning("Prefect does not answer; what is done is done without it")

    def leave(self, code: int) -> int:
        """Let the process end by this code soon, though Prefect would wait for its server."""
        timer = threading.Timer(
            GRACE_S if not self._thread.is_alive() else 0.5, leave, [code, True]
        )
        timer.daemon = True
        timer.start()
        return code

    def _follow(self) -> None:
        try:
            self._flow()(self._parameters, return_state=True)
        except Exception as error:  # Prefect's: the work is in another thread
            if not self._ended:
                _log.warning("Prefect failed, and the work goes on without it: %s", error)
        finally:
            self._begun.set()

    def _flow(self) -> Callable[..., Any]:
        @flow(name=self._name, persist_result=False)
        def follow(recipe: dict[str, Any]) -> State[Any]:  # noqa: ARG001 - Prefect shows it
            self._run_id = UUID(flow_run.get_id())
            self._begun.set()
            while True:
                event = self._events.get()
                if isinstance(event, _End):
                    state = Failed if event.failed else Completed
                    return state(message=event.message)
                if isinstance(event, _Pause):
                    if event.over.is_set():
                        continue
                    pause_flow_run(timeout=PAUSE_S, poll_interval=POLL_S, key=event.key)
                    event.answered.set()
                else:
                    _as_task(event, self._name)

        return follow


@contextmanager
def report_to_prefect(name: str, parameters: Mapping[str, Any]) -> Iterator[PrefectReporter]:
    """Let a Prefect flow run follow the work in this block; what is raised in it fails the run."""
    follower = PrefectReporter(name, parameters)
    try:
        yield follower
    except BaseException as error:
        follower.end(f"{type(error).__name__}: {error}", failed=True)
        code = error.code if isinstance(error, SystemExit) else 1
        follower.leave(code if isinstance(code, int) else 1)
        raise


def _resume(run_id: UUID) -> None:
    try:
        resume_flow_run(run_id)
    except Exception as error:  # it was not paused yet, or its server is gone
        _log.info("Prefect's flow run could not be resumed: %s", error)


def _as_task(stage: StageReport, key: str) -> None:
    """Show a stage as a task that lasts as long."""

    @task(name=stage.name, cache_policy=NO_CACHE, persist_result=False)
    def last() -> None:
        stage.over.wait()
        if stage.error:
            raise RuntimeError(stage.error)
        if stage.markdown:
            create_markdown_artifact(stage.markdown, key=key, description=stage.name)

    last(return_state=True)


def _as_markdown(outcome: RunResult) -> str:
    names = ("samples_in", "kept", "filtered", "rejected")
    rows = "".join(f"| {name} | {outcome.statistics[name]} |\n" for name in names)
    return f"| | samples |\n|---|---|\n{rows}"
