"""`capfilt bootstrap` and `capfilt trial`: train on what was cleaned, in rounds or view by view."""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import AsJson, Direct, RecipePath, Set, path_argument, say_loading
from pipeline.printable import visible

if TYPE_CHECKING:
    from flows.following.reporter import Reporter
    from flows.rounds.approval import Answer
    from flows.rounds.ledger import Ledger
    from flows.rounds.names import Stage
    from flows.rounds.recipe import BootstrapRecipe
    from flows.stages.clean import RunListener
    from flows.stages.rounds.bootstrap import Outcome, RoundsJob
    from flows.training.log import Display

BOOTSTRAP_EXAMPLES = """
Examples:

  capfilt bootstrap recipe.yaml

  capfilt bootstrap recipe.yaml --set rounds=3 --set gate=record --json

  capfilt bootstrap recipe.yaml --set approve=true
"""
APPROVE_EXAMPLES = """
Examples:

  capfilt approve runs/rounds --reason "captions read well"

  capfilt approve runs/rounds 1 --no --reason "too many texts of one word"
"""
TRIAL_EXAMPLES = """
Examples:

  capfilt trial RUN RUN:strict RUN:loose trial.yaml

  capfilt trial RUN:strict trial.yaml --output runs/trial --json
"""
POLL_S = 1.0

Output = Annotated[str | None, typer.Option(help="folder, new or to be resumed")]


def bootstrap(
    recipe: RecipePath = None,
    output: Output = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="how many")] = None,
    direct: Direct = False,
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the ledger as JSON")] = False,
) -> None:
    """Pre-train, finetune, clean and evaluate in rounds; the same command takes them up again."""
    from flows.following.reporter import reporting
    from flows.recipe import read_recipe
    from flows.rounds.recipe import BootstrapRecipe
    from flows.stages.first_checks import check_rounds

    flags = {"output": output, "rounds": rounds}
    loaded = read_recipe(BootstrapRecipe, recipe, flags, set_ or ())
    check_rounds(loaded)
    say_loading()
    with reporting("bootstrap", direct) as report:
        from flows.stages.rounds import bootstrap as stages
        from flows.stages.summary import of_rounds

        report.begin(_parameters(loaded, recipe, set_ or ()))
        with report.stage("prepare"):
            job = stages.prepare(loaded)
        ledger = stages.run(job, _Callbacks(job, report))
        with report.stage("finish") as last:
            last.result = of_rounds(ledger)
        code = _conclude(job, ledger, as_json)
    raise typer.Exit(code)


def _parameters(
    recipe: "BootstrapRecipe", path: Path | None, settings: Sequence[str]
) -> dict[str, Any]:
    """Say what is done as the form of the flow does."""
    from flows.following.parameters import place, shortened
    from flows.recipe import parse_settings

    return {
        "output": place(recipe.output),
        "recipe": place(str(path)) if path else "",
        "web": shortened(recipe.web.urls),
        "human": shortened(recipe.human.urls),
        "held_out": shortened(recipe.held_out.urls),
        "rounds": recipe.rounds,
        "approve": recipe.approve,
        "engine": recipe.engine.kind,
        "settings": dict(parse_settings(settings)),
    }


class _Callbacks:
    """Says a line of each step, and lets Prefect follow, if it does."""

    def __init__(self, job: "RoundsJob", report: "Reporter") -> None:
        self._job, self._report = job, report

    def step(self, name: str) -> "AbstractContextManager[Outcome]":
        _say(f"{name} …")
        return self._report.stage(name)

    def training(self, steps: int) -> "AbstractContextManager[Display]":
        from flows.cli.display.progress import watch_training

        return watch_training(steps, self._report.progress)

    def cleaning(self) -> "AbstractContextManager[RunListener]":
        from flows.cli.display.progress import RunProgress

        return RunProgress(self._report.progress).shown()

    def ended(self, number: int, stage: "Stage", entry: dict[str, Any], before: bool) -> None:
        from flows.stages.progress import stage_line

        done = "done before" if before else "done"
        _say(f"round {number}: {stage} {done}: {stage_line(stage, entry)}")

    def ask(self, ledger: "Ledger", number: int) -> "Answer | None":
        """Ask on a terminal, or wait for Prefect and `capfilt approve`; without either, None."""
        from flows.cli.display.rounds import print_rounds

        print_rounds(ledger)
        if self._report.is_alive():
            return self._wait(number)
        return _ask(number)

    def _wait(self, number: int) -> "Answer | None":
        from flows.rounds.approval import Answer, read_answer

        how = _how_to_approve(self._job.folder)
        _say(f"round {number} waits: answer on Prefect's page, or {how}")
        before = read_answer(self._job.folder, number)
        while (answer := read_answer(self._job.folder, number)) == before:
            if (answered := self._report.answer()) is not None:
                return Answer(**answered)
            if not self._report.is_alive():
                return None
            time.sleep(POLL_S)
        return answer


def _ask(number: int) -> "Answer | None":
    from flows.rounds.approval import Answer

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    yes = typer.confirm(f"round {number} is done; begin round {number + 1}?", err=True)
    return Answer.now(yes, "terminal", "")


def approve(
    folder: Annotated[Path, path_argument(help="of the rounds")],
    number: Annotated[
        int | None, typer.Argument(metavar="[ROUND]", min=1, help="default: the last one done")
    ] = None,
    reason: Annotated[str, typer.Option(help="why; it stands beside the answer")] = "",
    no: Annotated[bool, typer.Option("--no", help="let it end here")] = False,
) -> None:
    """Let the round after this one begin, or not: a bootstrap that waits goes on by it."""
    import getpass

    from flows.stages.first_checks import check_begun

    check_begun(folder)

    from flows.rounds.approval import Answer
    from flows.stages.rounds import bootstrap as stages

    given = Answer.now(not no, getpass.getuser(), reason)
    number, answer = stages.approve(folder, number, given)
    said = f"round {number} is {'not approved' if no else 'approved'}"
    before = "" if answer is given else f" already, by {answer.by} at {answer.at}: {answer.reason}"
    print(visible(said + before), file=sys.stderr)


def _conclude(job: "RoundsJob", ledger: "Ledger", as_json: bool) -> int:
    """Print what the rounds came to; return the exit code."""
    from flows.stages.rounds.bootstrap import exit_code

    if as_json:
        print(json.dumps(ledger.as_dict() | {"output": str(job.folder)}))
    else:
        from flows.cli.display.rounds import print_rounds

        print_rounds(ledger)
        print(f"output: {job.folder}")
    last = len(ledger.rounds)
    if ledger.ended == "gate":
        _say(f"round {last} did not improve retrieval: the gate stops; the best: {ledger.best}")
    if ledger.ended == "approval":
        _say(f"round {last} waits for a person: {_how_to_approve(job.folder)}, then run this again")
    return exit_code(ledger)


def _how_to_approve(folder: Path) -> str:
    return f"capfilt approve {folder}"


def trial(
    views: Annotated[
        list[str], typer.Argument(metavar="RUN[:VIEW]...", help="what to train on; no view: own")
    ],
    recipe: Annotated[Path, path_argument(help="recipe (YAML); flags go over it")],
    output: Output = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Train the same small network on each view, and measure its retrieval on held-out pairs."""
    from flows.recipe import read_recipe
    from flows.rounds.recipe import TrialRecipe
    from flows.stages.first_checks import check_trial

    loaded = read_recipe(TrialRecipe, recipe, {"output": output}, set_ or ())
    check_trial(loaded, views)
    say_loading()

    from flows.cli.display.progress import watch_training
    from flows.stages.rounds import trial as stages

    job = stages.prepare(loaded, views)
    entries = stages.run(job, lambda name: _say(f"{name} …"), watch_training)
    if as_json:
        print(json.dumps({"output": str(job.folder), "views": entries}))
        return
    from flows.cli.display.rounds import print_trial

    print_trial(entries)
    print(f"output: {job.folder}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
