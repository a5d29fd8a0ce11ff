"""`capfilt bootstrap` and `capfilt trial`: train on what was cleaned, in rounds or view by view."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import AsJson, Direct, RecipePath, Set

if TYPE_CHECKING:
    from flows.prefect_flow import PrefectReporter
    from flows.rounds.ledger import Ledger, Stage
    from flows.stages.bootstrap import RoundsJob
    from flows.stages.clean import RunListener
    from flows.training.log import Display

BOOTSTRAP_EXAMPLES = """
Examples:

  capfilt bootstrap recipe.yaml

  capfilt bootstrap recipe.yaml --set rounds=3 --set gate=record --json

  capfilt bootstrap recipe.yaml --approve 1
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
    approve: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="let the round after this one begin")
    ] = None,
    direct: Direct = False,
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the ledger as JSON")] = False,
) -> None:
    """Pre-train, finetune, clean and evaluate in rounds; the same command takes them up again."""
    from flows.recipe import read_recipe
    from flows.rounds.recipe import BootstrapRecipe

    flags = {"output": output, "rounds": rounds}
    loaded = read_recipe(BootstrapRecipe, recipe, flags, set_ or ())

    from flows.stages import bootstrap as stages

    if approve is not None:
        stages.approve(Path(loaded.output).expanduser().absolute(), approve, "command line")
        print(f"round {approve} is approved", file=sys.stderr)
        return
    job = stages.prepare(loaded)
    if direct:
        ledger = stages.run(job, _Callbacks(job, None))
        raise typer.Exit(_conclude(job, ledger, as_json))
    raise typer.Exit(_run_with_prefect(job, as_json))


def _run_with_prefect(job: "RoundsJob", as_json: bool) -> int:
    from flows.cli.faults import exit_code_of
    from flows.prefect_flow import report_to_prefect
    from flows.stages import bootstrap as stages

    with report_to_prefect("bootstrap", job.recipe.model_dump(mode="json")) as follower:
        try:
            ledger = stages.run(job, _Callbacks(job, follower))
        except Exception as error:
            follower.end(str(error), failed=True)
            return follower.leave(exit_code_of(error))
        follower.end(f"{job.folder}: round {ledger.best} is the best", failed=False)
        return follower.leave(_conclude(job, ledger, as_json))


class _Callbacks:
    """Says a line of each stage, and lets Prefect follow, if it does."""

    def __init__(self, job: "RoundsJob", follower: "PrefectReporter | None") -> None:
        self._job, self._follower = job, follower

    @contextmanager
    def stage(self, number: int, stage: "Stage") -> Iterator[None]:
        _say(f"round {number}: {stage} …")
        if self._follower is None:
            yield
            return
        with self._follower.stage(f"round {number}: {stage}") as shown:
            yield
            from flows.cli.display.rounds import stage_line
            from flows.rounds.ledger import read_stage

            entry = read_stage(self._job.folder, number, stage)
            shown.markdown = f"round {number}, {stage}: {stage_line(stage, entry or {})}"

    def training(self, steps: int) -> "AbstractContextManager[Display]":
        from flows.cli.display.progress import watch_training

        return watch_training(steps)

    def cleaning(self) -> "AbstractContextManager[RunListener]":
        from flows.cli.display.progress import RunProgress

        return closing(RunProgress())

    def ended(self, number: int, stage: "Stage", entry: dict[str, Any], before: bool) -> None:
        from flows.cli.display.rounds import stage_line

        done = "done before" if before else "done"
        _say(f"round {number}: {stage} {done}: {stage_line(stage, entry)}")

    def approve(self, ledger: "Ledger", number: int) -> bool:
        """Ask on a terminal, or wait for Prefect and `--approve`; without either, stop here."""
        from flows.cli.display.rounds import print_rounds
        from flows.stages.bootstrap import approve

        print_rounds(ledger)
        by = self._ask(number) if self._follower is None else self._wait(self._follower, number)
        if by is None:
            return False
        approve(self._job.folder, number, by)
        return True

    def _ask(self, number: int) -> str | None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return None
        yes = typer.confirm(f"round {number} is done; begin round {number + 1}?", err=True)
        return "terminal" if yes else None

    def _wait(self, follower: "PrefectReporter", number: int) -> str | None:
        from flows.stages.bootstrap import is_approved

        if not follower.is_alive():
            return None
        _say(f"round {number} waits: resume the flow run in Prefect, or {_how_to_approve(number)}")
        with follower.pause(f"round-{number}") as resumed:
            while not is_approved(self._job.folder, number):
                if resumed.is_set():
                    return "Prefect"
                if not follower.is_alive():
                    return None
                time.sleep(POLL_S)
        return "command line"


def _conclude(job: "RoundsJob", ledger: "Ledger", as_json: bool) -> int:
    """Print what the rounds came to; return the exit code."""
    from flows.stages.bootstrap import exit_code

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
        _say(f"round {last} waits for a person. To go on: {_how_to_approve(last)}, then run this")
    return exit_code(ledger)


def _how_to_approve(number: int) -> str:
    return f"run this command with --approve {number}"


def trial(
    views: Annotated[
        list[str], typer.Argument(metavar="RUN[:VIEW]...", help="what to train on; no view: own")
    ],
    recipe: Annotated[Path, typer.Argument(help="recipe (YAML); flags go over it")],
    output: Output = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Train the same small network on each view, and measure its retrieval on held-out pairs."""
    from flows.recipe import read_recipe
    from flows.rounds.recipe import TrialRecipe

    loaded = read_recipe(TrialRecipe, recipe, {"output": output}, set_ or ())

    from flows.cli.display.progress import watch_training
    from flows.stages import trial as stages

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
