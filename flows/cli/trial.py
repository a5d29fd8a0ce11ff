"""`capfilt trial`: which view of a run trains the best network?"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLES = """
Examples:

  capfilt trial RUN RUN:strict RUN:loose trial.yaml

  capfilt trial RUN:strict trial.yaml --output runs/trial --json
"""


def trial(
    views: Annotated[
        list[str], typer.Argument(metavar="RUN[:VIEW]...", help="what to train on; no view: own")
    ],
    recipe: Annotated[Path, typer.Argument(help="recipe (YAML); flags go over it")],
    output: Annotated[str | None, typer.Option(help="folder, new or to be resumed")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="a.b=c, any key of the recipe")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Train the same small network on each view, and measure its retrieval on held-out pairs."""
    from flows.recipe import read_recipe
    from flows.rounds.recipe import TrialRecipe

    flags = {} if output is None else {"output": output}
    loaded = read_recipe(TrialRecipe, recipe, flags, set_ or ())

    from flows.cli.training_progress import watch_training
    from flows.stages import trial as occasion

    job = occasion.prepare(loaded, views)
    found = occasion.run(job, _stage, watch_training)
    if as_json:
        print(json.dumps({"output": str(job.folder), "views": found}))
        return
    _print(found)
    print(f"output: {job.folder}")


@contextmanager
def _stage(name: str) -> Iterator[None]:
    print(f"{name} …", file=sys.stderr, flush=True)
    yield


def _print(views: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from pipeline.printable import visible

    names = ("mean of both", "TR@1", "IR@1", "samples")
    table = Table("view", *(Column(name, justify="right") for name in names))
    for entry in views:
        itm = entry["retrieval"]["itm"]
        numbers = (entry["measure"], itm["tr@1"], itm["ir@1"])
        shown = (f"{number:.3f}" for number in numbers)
        view = f"{entry['run']}:{entry['view'] or 'own'}"
        table.add_row(Text(visible(view), overflow="fold"), *shown, f"{entry['samples']:,}")
    Console().print(table)
