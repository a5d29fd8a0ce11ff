"""The run as Prefect sees it: one flow, one task a stage, and a server that may die.

Prefect tells people what happens; it never decides what is done. A dead server stalls its client
for minutes (each call is tried again with growing pauses, and each event still queued costs 21 s
at exit), so the process leaves by the commits soon after its last stage, whatever Prefect does.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.clean import CleanWatch, Job, Outcome, clean_shards, finish
from flows.engines.engine import ShardFailed

GRACE_S = 4.0  # that Prefect has to record an end, and again to let the process go

_log = logging.getLogger(__name__)
Conclude = Callable[[Outcome | BaseException], int]


def run_with_prefect(job: Job, watch: CleanWatch, conclude: Conclude) -> int:
    """Run the stages as a Prefect flow; give the exit code that `conclude` makes of their end.

    If Prefect cannot start, or fails between two stages, the rest runs without it.
    """
    stages = _Stages(job, watch, conclude)
    try:
        _clean_flow(stages)(job.recipe.model_dump(mode="json"))
    except Exception as error:  # the stages hold their own; this is Prefect's
        if not stages.ended:
            _log.warning("Prefect failed, and the run goes on without it: %s", error)
    if not stages.ended:
        stages.clean()
        stages.finish()
    code = stages.conclude()
    _leave_within(GRACE_S, code)
    return code


class _Stages:
    """The stages of a job, and what came of them, which Prefect may lose."""

    def __init__(self, job: Job, watch: CleanWatch, conclude: Conclude) -> None:
        self._job, self._watch, self._conclude = job, watch, conclude
        self._failures: tuple[ShardFailed, ...] = ()
        self._result: Outcome | BaseException | None = None
        self._code: int | None = None
        self._lock = threading.Lock()

    @property
    def ended(self) -> bool:
        """Whether the work is over, well or badly."""
        return self._result is not None

    def clean(self) -> None:
        """Clean the shards."""
        try:
            self._failures = clean_shards(self._job, self._watch)
        except Exception as error:
            self._end(error)
            raise

    def finish(self) -> Outcome:
        """Write the snapshot and count."""
        try:
            outcome = finish(self._job, self._failures)
        except Exception as error:
            self._end(error)
            raise
        self._end(outcome)
        return outcome

    def conclude(self) -> int:
        """Tell the user, once, however many threads ask; give the exit code."""
        with self._lock:
            if self._code is None:
                assert self._result is not None
                self._code = self._conclude(self._result)
            return self._code

    def _end(self, result: Outcome | BaseException) -> None:
        self._result = result
        timer = threading.Timer(GRACE_S, self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        if self._code is None:
            _log.warning("Prefect does not answer; leaving by the commits")
        _leave(self.conclude())


def _clean_flow(stages: _Stages) -> Callable[[dict[str, Any]], State[Any]]:
    @task(name="clean the shards", cache_policy=NO_CACHE, persist_result=False)
    def clean_task() -> None:
        stages.clean()

    @task(name="finish", cache_policy=NO_CACHE, persist_result=False)
    def finish_task() -> Outcome:
        outcome = stages.finish()
        create_markdown_artifact(_as_markdown(outcome), key="clean", description=outcome.run_url)
        return outcome

    @flow(name="clean", persist_result=False)
    def clean(recipe: dict[str, Any]) -> State[Any]:  # noqa: ARG001 - Prefect shows it
        clean_task()
        outcome = finish_task()
        message = f"exit code {outcome.exit_code}: {outcome.run_url}"
        return Failed(message=message) if outcome.exit_code == 1 else Completed(message=message)

    return clean


def _as_markdown(outcome: Outcome) -> str:
    names = ("samples_in", "kept", "filtered", "rejected")
    rows = "".join(f"| {name} | {outcome.statistics[name]} |\n" for name in names)
    return f"| | samples |\n|---|---|\n{rows}"


def _leave_within(seconds: float, code: int) -> None:
    """End the process at the latest then, though Prefect would still wait for its server."""
    timer = threading.Timer(seconds, _leave, [code])
    timer.daemon = True
    timer.start()


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
