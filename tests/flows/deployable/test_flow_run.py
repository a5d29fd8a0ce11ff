"""What each flow run has around its stages, on a server of its own."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import flow_run as this_run
from prefect.states import Cancelling

from flows.deployable import flow_run
from flows.deployable.flow_run import FlowRun, dated, doer, name_run, resource_name
from flows.engines.engine import EngineError
from flows.recipe import RecipeError
from flows.run_log.events import EVENTS, tell
from flows.stages.summary import Summary
from tests.support.driving import wait_until

DONE = Summary(exit_code=0, message="3 of 4 kept", output="/run", run="/run", numbers={"kept": 3})


def run_of(work: Callable[[FlowRun], object], **parameters: Any) -> State[Any]:
    """Run a flow named toy, which ends as `work` does."""

    @flow(name="toy", flow_run_name=name_run, persist_result=False)
    def toy(output: str = "/run", recipe: str = "") -> State[Any] | None:  # noqa: ARG001 - a form
        with FlowRun("toy") as run:
            work(run)
        return run.state

    state: State[Any] = toy(**parameters, return_state=True)
    return state


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_a_flow_run_that_is_done(
    prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET_KEY", "correct-horse")
    monkeypatch.setattr(flow_run, "LOOK_EVERY_S", 0.2)

    def work(run: FlowRun) -> None:
        assert run.stage("add", lambda a, b: a + b, 2, 3) == 5
        tell("event", "an event with correct-horse in it")
        run.progress(0.5, "half")
        time.sleep(1)
        run.progress(1.0, "all")
        run.end(DONE)

    state = run_of(work, recipe="/recipes/nightly.yaml")
    assert (state.name, state.message) == ("Completed", "3 of 4 kept")
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    assert prefect.read_flow_run(run_id).name == "toy /run by nightly.yaml"
    kept = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    artifacts = {found.key: found for found in prefect.read_artifacts(artifact_filter=kept)}
    assert artifacts.keys() == {"toy-numbers", "toy-progress", "toy-report"}
    assert (artifacts["toy-progress"].data, artifacts["toy-progress"].description) == (100, "all")
    assert "`/run/report/index.html`" in str(artifacts["toy-report"].data)

    def logs() -> list[str]:
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
        return [log.message for log in prefect.read_logs(wanted)]

    wait_until(lambda: "an event with *** in it" in logs(), 20)


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RecipeError("there is no /web"), "there is no /web"),
        (RecipeError("http://me:sesame@host has no tar"), "http://***@host has no tar"),
    ],
)
def test_what_is_expected_to_fail_fails_by_its_message(error: Exception, message: str) -> None:
    state = run_of(lambda run: run.stage("prepare", raising(error)))
    assert (state.name, state.message) == ("Failed", message)


@pytest.mark.usefixtures("prefect")
def test_work_that_is_not_done_is_no_success() -> None:
    left = Summary(
        exit_code=1, message="1 shards are pending", output="/run", run="/run", numbers={}
    )
    state = run_of(lambda run: run.end(left))
    assert (state.name, state.message) == ("Failed", "1 shards are pending")
    damaged = Summary(exit_code=3, message="all but one", output="/run", run="/run", numbers={})
    assert run_of(lambda run: run.end(damaged)).name == "Completed"


@pytest.mark.usefixtures("prefect")
def test_a_bug_is_raised_and_not_tried_again() -> None:
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        raise KeyError("a bug")

    state = run_of(lambda run: run.stage("prepare", work))
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), KeyError)
    assert tries == [1]


@pytest.mark.usefixtures("prefect")
def test_a_stage_that_lost_its_machines_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_run, "RETRY_DELAYS_S", [0.1, 0.1])
    lost = [EngineError("a machine is gone"), OSError("the network is gone")]

    def work() -> str:
        for error in lost:
            lost.remove(error)
            raise error
        return "done"

    def stages(run: FlowRun) -> None:
        assert run.stage("clean", work) == "done"
        run.end(DONE)

    assert run_of(stages).name == "Completed"
    gone = EngineError("a machine is gone for good")
    state = run_of(lambda run: run.stage("clean", raising(gone)))
    assert (state.name, state.message) == ("Failed", "a machine is gone for good")


class Stopped:
    """Does the stages here, and notes who stops them."""

    patience = 1

    def __init__(self) -> None:
        self.why: list[str] = []
        self.answers: list[Exception | None] = []

    def do(self, _run: FlowRun, _name: str, work: Callable[[], Any]) -> Any:
        return work()

    def stop(self, why: str) -> None:
        self.why.append(why)

    def is_over(self) -> bool:
        return False

    def note_answer(self, _answer: object) -> None: ...

    def note_server(self, error: Exception | None) -> None:
        self.answers.append(error)


def test_a_cancel_is_heard_once_whoever_does_the_work(
    prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_run, "LOOK_EVERY_S", 0.1)
    worker = Stopped()

    def work(_run: FlowRun) -> None:
        prefect.set_flow_run_state(this_run.id, Cancelling())
        wait_until(lambda: bool(worker.why), 10)
        time.sleep(0.5)
        raise SystemExit(143)

    token = doer.set(worker)
    try:
        with suppress(SystemExit):
            run_of(work)
    finally:
        doer.reset(token)
    assert worker.why == ["cancelled on Prefect's page"]
    assert set(worker.answers) == {None}
    (run, *_) = prefect.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
    assert run.state is not None
    assert (run.state.name, run.state.message) == (
        "Cancelled",
        "cancelled; what is committed is kept, and a run goes on by it",
    )


@pytest.mark.usefixtures("prefect")
def test_events_are_heard_as_long_as_the_flow_run_lasts() -> None:
    before, within = list(EVENTS.handlers), list[logging.Handler]()
    run_of(lambda _: within.extend(EVENTS.handlers))
    assert len(within) == len(before) + 1
    assert before == EVENTS.handlers


def test_the_day_of_a_scheduled_run_is_part_of_its_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = datetime(2026, 11, 28, 3, 5, tzinfo=UTC)
    monkeypatch.setattr(flow_run, "this_run", SimpleNamespace(scheduled_start_time=start))
    assert dated("/runs/{date}") == "/runs/2026-11-28"
    assert dated("/runs/{time}/{other}") == "/runs/2026-11-28T030500/{other}"


@pytest.mark.parametrize(
    ("output", "name"),
    [("/data/a run", "data-a-run"), ("s3://bucket/x_1", "s3-bucket-x_1"), ("///", "unnamed")],
)
def test_a_run_folder_is_a_name_in_events(output: str, name: str) -> None:
    assert resource_name(output) == name
