"""The question after a round: on the page, in the folder, or without a server."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.sorting import FlowRunSort

from flows.deployable import approval
from flows.deployable.approval import ask_a_person
from flows.deployable.flow_run import FlowRun
from flows.rounds.approval import Answer, write_answer

pytestmark = pytest.mark.timeout(90)  # a person who fails never answers

ROUND = {
    "round": 1,
    "gate": {"measure": 0.25, "improved": True},
    "evaluate": {"retrieval": {"itm": {"tr@1": 0.5, "ir@1": 0.125}}},
    "clean": {"kept": 1000, "samples_in": 1200},
}


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a round is done, and the next one begun; answers are looked for often."""
    monkeypatch.setattr(approval, "POLL_S", 1)
    (tmp_path / "rounds.json").write_text(json.dumps({"rounds": [ROUND, {"round": 2}]}))
    return tmp_path


def asked(folder: Path, person: Callable[[], None]) -> Answer | None:
    """Ask after round 1, while a person does something."""
    answers: list[Answer | None] = []

    @flow(name="asking", persist_result=False)
    def asking() -> None:
        with FlowRun("asking") as run:
            answers.append(ask_a_person(run, str(folder), 1))

    thread = threading.Thread(target=person)
    thread.start()
    asking(return_state=True)
    thread.join()
    (answer,) = answers
    return answer


def paused(prefect: SyncPrefectClient) -> Any:
    """Wait for the flow run that asks."""
    for _ in range(200):
        (run, *_) = [*prefect.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1), None]
        if run is not None and run.state is not None and run.state.is_paused():
            return run
        time.sleep(0.1)
    raise TimeoutError("no flow run asks")


@pytest.mark.slow
def test_an_answer_on_the_page_is_a_persons(prefect: SyncPrefectClient, rounds: Path) -> None:
    no = {"approve": False, "reason": "too many repeat"}
    heard: list[str] = []

    def on_the_page() -> None:
        run = paused(prefect)
        for given in ({}, {"approve": True}, {"approve": True, "reason": ""}, no):
            answered = prefect.resume_flow_run(run.id, run_input=given)
            heard.append(answered.status.value)

    answer = asked(rounds, on_the_page)
    assert heard == ["REJECT", "REJECT", "REJECT", "ACCEPT"]
    assert answer is not None
    assert answer[:3] == (False, "Prefect", "too many repeat")


@pytest.mark.parametrize("yes", [True, False])
def test_an_answer_in_the_folder_resumes_the_flow_run(
    prefect: SyncPrefectClient, rounds: Path, yes: bool
) -> None:
    write_answer(rounds, 1, Answer.now(not yes, "somebody", "of an earlier time"))
    given = Answer.now(yes, "somebody", "seen")

    def in_the_folder() -> None:
        paused(prefect)
        write_answer(rounds, 1, given)

    assert asked(rounds, in_the_folder) == given


@pytest.mark.usefixtures("prefect")
def test_the_folder_is_waited_for_where_prefect_cannot_ask(
    rounds: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(**_: object) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(approval, "pause_flow_run", gone)
    given = Answer.now(True, "somebody", "seen")

    def in_the_folder() -> None:
        time.sleep(1)
        write_answer(rounds, 1, given)

    assert asked(rounds, in_the_folder) == given
    assert f"(the server is gone): capfilt approve {rounds} is waited for" in caplog.text


@pytest.mark.usefixtures("prefect")
def test_the_question_shows_what_the_rounds_came_to(
    rounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def page(wait_for_input: Any, **_: object) -> Any:
        shown.append(wait_for_input._description)
        return SimpleNamespace(approve=True, reason="ok")

    monkeypatch.setattr(approval, "pause_flow_run", page)
    asked(rounds, lambda: None)
    (question,) = shown
    assert question.splitlines()[0] == (
        "Round 1 is done, and better than all before. May the next one begin?"
    )
    assert question.splitlines()[-1] == "| 1 | 0.250 | 0.500 | 0.125 | 1,000 of 1,200 |"
