"""`capfilt clean`: decide about pairs."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.options import (
    INPUT_HELP,
    Address,
    Direct,
    Engine,
    RecipePath,
    Set,
    say_loading,
)

if TYPE_CHECKING:
    from flows.following.reporter import Reporter
    from flows.recipe import Recipe
    from flows.stages.clean import RunResult
    from flows.stages.first_checks import Checked

CLEAN_EXAMPLES = """
Examples:

  capfilt clean --input web/ --output runs/first \\
      --captioner my-captioner --filter my-filter

  capfilt clean recipe.yaml --set judge.threshold.web=0.6

  capfilt clean recipe.yaml --part 2/8  # of a job array

  capfilt clean recipe.yaml --only screen --output runs/screen


  capfilt clean recipe.yaml --candidates texts.parquet --set judge.threshold.human=0.5
"""


Output = Annotated[str | None, typer.Option(help="run folder, new or to be resumed")]
Part = Annotated[str, typer.Option(help="i/n: every n-th shard, for job arrays")]
Candidates = Annotated[
    str | None, typer.Option(help="Parquet of more texts: key, text, and maybe shard, author")
]
Only = Annotated[
    Literal["screen"] | None,
    typer.Option(help="stop before any model, in a run of its own: to count, and for dedup"),
]
Skip = Annotated[
    str | None,
    typer.Option(
        metavar="RUN:VIEW|FILE",
        help="samples that no model sees: what a view of a screening leaves out, or SHARD/KEY "
        "lines, or Parquet with both columns",
    ),
]


def clean(
    recipe: RecipePath = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help=f"{INPUT_HELP}. Texts that stand in no KEY.txt: --set input.text=json:FIELD (of a "
            "table: its column), or =EXTENSION",
        ),
    ] = None,
    output: Output = None,
    captioner: Annotated[
        str | None,
        typer.Option(help="folder or hub id: of BLIP, or of what --set caption.kind=… says"),
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", help="folder or hub id: of BLIP, or of --set score.kind=…"),
    ] = None,
    candidates: Candidates = None,
    engine: Engine = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Ray actors")] = None,
    address: Address = None,
    part: Part = "1/1",
    only: Only = None,
    skip: Skip = None,
    direct: Direct = False,
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the statistics as JSON")] = False,
) -> None:
    """Caption, score and filter WebDataset shards; the same command takes a run up again."""
    of_all = parse_part(part)

    from flows.following.reporter import reporting
    from flows.recipe import Recipe, read_recipe
    from flows.stages.first_checks import check_cleaning

    flags = {
        "input.urls": input_,
        "output": output,
        "candidates": candidates,
        "caption.model": captioner,
        "score.model": filter_,
        "engine.kind": engine,
        "engine.actors": actors,
        "engine.address": address,
        "skip": skip,
    }
    if only == "screen":
        raise typer.Exit(_screen(recipe, flags, set_ or (), of_all, as_json))
    loaded = read_recipe(Recipe, recipe, flags, set_ or ())
    checked = check_cleaning(loaded)
    say_loading()
    with reporting("clean", direct) as report:
        report.begin(_parameters(loaded, recipe, set_ or ()))
        code = _run(loaded, of_all, checked, report, as_json)
    raise typer.Exit(code)


def _run(
    recipe: "Recipe", part: tuple[int, int], checked: "Checked", report: "Reporter", as_json: bool
) -> int:
    """Clean, as `flows/deployable/clean.py` has the stages; return the exit code."""
    from flows.cli.display.progress import RunProgress
    from flows.stages import clean as stages
    from flows.stages.summary import of_cleaning

    with report.stage("prepare"):
        job = stages.prepare(recipe, part, checked)
    if not job.pending:
        report.nothing_to_do()
    with RunProgress(report.progress).shown() as progress:
        with report.stage("clean the shards"):
            work = stages.clean_shards(job, progress)
        with report.stage("finish") as last:
            result = stages.finish(job, work)
            last.result = of_cleaning(result, new=bool(job.pending))
    _print(result, as_json)
    return result.exit_code


def _screen(
    path: Path | None,
    flags: Mapping[str, Any],
    settings: Sequence[str],
    part: tuple[int, int],
    as_json: bool,
) -> int:
    """Screen, without Prefect: it is short, and nothing of it waits for a person."""
    from flows.recipe import ScreenRecipe, read_recipe
    from flows.stages import screen as screening
    from flows.stages.first_checks import check_screening

    loaded = read_recipe(ScreenRecipe, path, flags, settings)
    checked = check_screening(loaded)
    say_loading()

    from flows.cli.display.progress import RunProgress
    from flows.stages import clean as stages

    job = screening.prepare(loaded, part, checked)
    with RunProgress(lambda *_: None).shown() as progress:
        work = stages.clean_shards(job, progress)
        result = stages.finish(job, work)
    _print(result, as_json)
    return result.exit_code


def _parameters(recipe: "Recipe", path: Path | None, settings: Sequence[str]) -> dict[str, Any]:
    """Say what is cleaned as the form of the flow does."""
    from flows.following.parameters import place, shortened
    from flows.recipe import parse_settings

    return {
        "input": shortened(recipe.input.urls),
        "output": place(recipe.output),
        "recipe": place(str(path)) if path else "",
        "captioner": ", ".join(section.model for section in recipe.captioners),
        "filter": ", ".join(section.model for section in recipe.scorers),
        "engine": recipe.engine.kind,
        "settings": dict(parse_settings(settings)),
    }


def parse_part(part: str) -> tuple[int, int]:
    """Read i/n as the first shard and the step."""
    first, slash, count = part.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise typer.BadParameter(f"{part!r}: expected i/n with 1 <= i <= n, as in 2/8")
    return int(first) - 1, int(count)


def _print(result: "RunResult", as_json: bool) -> None:
    """Print what a run came to."""
    if as_json:
        workers = [dataclasses.asdict(worker) for worker in result.workers]
        print(json.dumps(result.statistics | {"run": result.run_url, "workers": workers}))
    else:
        from flows.cli.display.statistics import print_statistics

        print_statistics(result.run_url, result.statistics)
    if result.pending_here:
        print(f"capfilt: {result.left}", file=sys.stderr)
