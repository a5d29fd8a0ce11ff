"""The question whether a next round may begin, on Prefect's page; the terminal may answer, too."""

import contextvars
import json
import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run as this_run
from pydantic import Field

from flows.deployable.flow_run import FlowRun
from flows.rounds.approval import Answer, read_answer
from shards.files.home import expand_home

PAUSE_S = 30 * 24 * 3600  # that a person has to answer
POLL_S = 2

_log = logging.getLogger(__name__)


class Approval(RunInput):
    """Whether the next round may begin; both fields have no default, so none is given unasked."""

    approve: bool
    reason: str = Field(min_length=1)


def ask_a_person(run: FlowRun, output: str, number: int) -> Answer | None:
    """Pause the flow run until a person answers here or by `capfilt approve`; None: nobody could.

    It may be answered in the folder of the rounds while its server is gone.
    """
    asked = _Asked(run, Path(expand_home(output)), number)
    question = asked.question()
    run.logger.info(
        "round %d is done and waits for a person: resume this flow run, or capfilt approve %s\n%s",
        number,
        output,
        question,
    )
    answered_elsewhere, over = asked.resumed_by_folder()
    try:
        create_markdown_artifact(question, key="bootstrap-question")
        form = Approval.with_initial_data(description=question)
        filled_in = pause_flow_run(
            wait_for_input=form, timeout=PAUSE_S, poll_interval=POLL_S, key=f"round-{number}"
        )
    except Exception as error:
        _log.warning("Prefect cannot ask (%s): capfilt approve %s is waited for", error, output)
        return asked.wait()
    finally:
        over.set()
        answered_elsewhere.join()
    if (answer := asked.news()) is not None or run.doer.is_over():
        return answer
    answer = Answer.now(filled_in.approve, "Prefect", filled_in.reason)
    run.doer.note_answer(answer._asdict())
    return answer


class _Asked:
    """The question after a round; an answer from before it was asked is none to it."""

    def __init__(self, run: FlowRun, folder: Path, number: int) -> None:
        self._run, self._folder, self._number = run, folder, number
        self._before = read_answer(folder, number)

    def news(self) -> Answer | None:
        """Return what has been answered in the folder."""
        answer = read_answer(self._folder, self._number)
        return None if answer == self._before else answer

    def wait(self) -> Answer | None:
        """Wait for an answer in the folder, or for the end of the command that asks."""
        while (answer := self.news()) is None and not self._run.doer.is_over():
            time.sleep(POLL_S)
        return answer

    def question(self) -> str:
        """Write what the rounds have come to, as Markdown."""
        rounds = json.loads((self._folder / "rounds.json").read_text(encoding="utf-8"))["rounds"]
        rows = [
            f"| {entry['round']} | {entry['gate']['measure']:.3f} "
            f"| {entry['evaluate']['retrieval']['itm']['tr@1']:.3f} "
            f"| {entry['evaluate']['retrieval']['itm']['ir@1']:.3f} "
            f"| {entry['clean']['kept']:,} of {entry['clean']['samples_in']:,} |"
            for entry in rounds
            if "gate" in entry
        ]
        head = "| round | gate | TR@1 | IR@1 | samples kept |\n|---|---|---|---|---|\n"
        improved = rounds[self._number - 1]["gate"]["improved"]
        verdict = "better than all before" if improved else "no better than one before"
        asked = f"Round {self._number} is done, and {verdict}. May the next one begin?"
        return f"{asked}\n\n{head}" + "\n".join(rows)

    def resumed_by_folder(self) -> tuple[threading.Thread, threading.Event]:
        """Begin to look at the folder, in a thread; the flow run is resumed by what it finds."""
        over, run_id = threading.Event(), UUID(this_run.get_id())

        def look() -> None:
            while not over.wait(POLL_S):
                answer = self.news()
                if answer is None and not self._run.doer.is_over():
                    continue
                given = {"approve": bool(answer and answer.approve), "reason": "answered elsewhere"}
                with suppress(Exception):  # not paused yet, or no server: again in a moment
                    resume_flow_run(run_id, run_input=given)

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(look,), daemon=True)
        thread.start()
        return thread, over
