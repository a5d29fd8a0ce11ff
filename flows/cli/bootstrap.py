"""`capfilt bootstrap`: rounds of pre-training, finetuning and cleaning, or their continuation."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.prefect_flow import PrefectReporter
    from flows.rounds.ledger import Ledger, Stage
    from flows.stages.bootstrap import RoundsJob
    from flows.stages.clean import RunListener
    from flows.training.log import Display

EXAMPLES = """
Examples:

  capfilt bootstrap recipe.yaml

  capfilt bootstrap recipe.yaml --set rounds=3 --set gate=record --json

  capfilt bootstrap recipe.yaml --approve 1
"""
POLL_S = 1.0


def bootstrap(
    recipe: Annotated[Path | None, typer.Argument(help="recipe (YAML); flags go over it")] = None,
    output: Annotated[str | None, typer.Option(help="folder, new or to be resumed")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="how many")] = None,
    approve: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="let the round after this one begin")
    ] = None,
    direct: Annotated[bool, typer.Option("--direct", help="without Prefect")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="a.b=c, any key of the recipe")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the ledger as JSON")] = False,
) -> None:
    """Pre-train, finetune, clean and evaluate in rounds; the same command takes them up again."""
    from flows.recipe import read_recipe
    from flows.rounds.recipe import BootstrapRecipe

    given = {"output": output, "rounds": rounds}
    flags = {key: value for key, value in given.items() if value is not None}
    loaded = read_recipe(BootstrapRecipe, recipe, flags, set_ or ())

    from flows.stages import bootstrap as occasion

    if approve is not None:
        occasion.approve(Path(loaded.output).expanduser().absolute(), approve, "command line")
        print(f"round {approve} is approved", file=sys.stderr)
        return
    job = occasion.prepare(loaded)
    if direct:
        ledger = occasion.run(job, _Guide(job, None))
        raise typer.Exit(_conclude(job, ledger, as_json))
    raise typer.Exit(_run_with_prefect(job, as_json))


def _run_with_prefect(job: "RoundsJob", as_json: bool) -> int:
    from flows.cli.faults import exit_code_of
    from flows.prefect_flow import report_to_prefect
    from flows.stages import bootstrap as occasion

    with report_to_prefect("bootstrap", job.recipe.model_dump(mode="json")) as follower:
        try:
            ledger = occasion.run(job, _Guide(job, follower))
        except Exception as error:
            follower.end(str(error), failed=True)
            return follower.leave(exit_code_of(error))
        follower.end(f"{job.folder}: round {ledger.best} is the best", failed=False)
        return follower.leave(_conclude(job, ledger, as_json))


class _Guide:
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
            from flows.rounds.ledger import read_stage

            entry = read_stage(self._job.folder, number, stage)
            shown.markdown = f"round {number}, {stage}: {_line(stage, entry or {})}"

    def training(self, steps: int) -> "AbstractContextManager[Display]":
        from flows.cli.training_progress import watch_training

        return watch_training(steps)

    def cleaning(self) -> "AbstractContextManager[RunListener]":
        from flows.cli.display import watch

        return watch()

    def ended(self, number: int, stage: "Stage", entry: dict[str, Any], before: bool) -> None:
        done = "done before" if before else "done"
        _say(f"round {number}: {stage} {done}: {_line(stage, entry)}")

    def approve(self, ledger: "Ledger", number: int) -> bool:
        """Ask on a terminal, or wait for Prefect and `--approve`; without either, stop here."""
        from flows.stages.bootstrap import approve

        _print_rounds(ledger)
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
    """Print what the rounds came to; give the exit code."""
    from flows.stages.bootstrap import exit_code

    if as_json:
        print(json.dumps(ledger.as_dict() | {"output": str(job.folder)}))
    else:
        _print_rounds(ledger)
        print(f"output: {job.folder}")
    last = len(ledger.rounds)
    if ledger.ended == "gate":
        _say(f"round {last} did not improve retrieval: the gate stops; the best: {ledger.best}")
    if ledger.ended == "approval":
        _say(f"round {last} waits for a person. To go on: {_how_to_approve(last)}, then run this")
    return exit_code(ledger)


def _how_to_approve(number: int) -> str:
    return f"run this command with --approve {number}"


def _line(stage: "Stage", entry: dict[str, Any]) -> str:
    """Say in one line what a stage came to."""
    if stage == "clean":
        from pipeline.printable import percent

        texts = ", ".join(
            f"{origin} {percent(found['kept'], found['in'])}"
            for origin, found in entry["texts"].items()
        )
        return f"{entry['kept']:,} of {entry['samples_in']:,} samples kept; texts kept: {texts}"
    if stage == "evaluate":
        itm, cider = entry["retrieval"]["itm"], entry["captions"]["cider"]
        return f"TR@1 {itm['tr@1']:.3f}, IR@1 {itm['ir@1']:.3f}, CIDEr {_number(cider)}"
    loss = entry["last_numbers"].get("loss")
    return f"{entry['steps']:,} steps, {entry['samples']:,} samples, loss {_number(loss)}"


def _print_rounds(ledger: "Ledger") -> None:
    """Print a table of the rounds that fits 80 columns."""
    from rich.console import Console
    from rich.table import Column, Table

    from pipeline.printable import percent

    names = ("gate", "TR@1", "IR@1", "CIDEr", "web kept", "synthetic kept")
    table = Table("round", *(Column(name, justify="right") for name in names))
    for entry in ledger.rounds:
        if "gate" not in entry:
            continue
        itm, texts = entry["evaluate"]["retrieval"]["itm"], entry["clean"]["texts"]
        kept = [texts.get(origin, {"in": 0, "kept": 0}) for origin in ("web", "synthetic")]
        best = " (best)" if entry["round"] == ledger.best else ""
        table.add_row(
            f"{entry['round']}{best}",
            _number(entry["gate"]["measure"]),
            _number(itm["tr@1"]),
            _number(itm["ir@1"]),
            _number(entry["evaluate"]["captions"]["cider"]),
            *(percent(found["kept"], found["in"]) for found in kept),
        )
    Console(stderr=not ledger.ended).print(table)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
