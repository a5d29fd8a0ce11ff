"""`capfilt clean`: start a cleaning run, or take it up again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.stages.clean import RunResult

EXAMPLES = """
Examples:

  capfilt clean recipe.yaml

  capfilt clean --input 'web/*.tar' --output runs/first \\
      --captioner CAPTIONER --filter FILTER

  capfilt clean recipe.yaml --set caption.top_p=0.95 --engine local --json
"""


def clean(
    recipe: Annotated[Path | None, typer.Argument(help="recipe (YAML); flags go over it")] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", help="tar, folder, glob or brace pattern; may be repeated"),
    ] = None,
    output: Annotated[str | None, typer.Option(help="run folder, new or to be resumed")] = None,
    captioner: Annotated[str | None, typer.Option(help="BLIP folder or hub id")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="BLIP folder or hub id")] = None,
    engine: Annotated[str | None, typer.Option(help="ray or local")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Ray actors")] = None,
    address: Annotated[str | None, typer.Option(help="of a running Ray cluster")] = None,
    part: Annotated[str, typer.Option(help="i/n: every n-th shard, for job arrays")] = "1/1",
    direct: Annotated[bool, typer.Option("--direct", help="without Prefect")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="a.b=c, any key of the recipe")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the statistics as JSON")] = False,
) -> None:
    """Caption, score and filter WebDataset shards; the same command takes a run up again."""
    from flows.recipe import load_recipe

    flags: dict[str, Any] = {
        "input.urls": input_,
        "output": output,
        "caption.model": captioner,
        "score.model": filter_,
        "engine.kind": engine,
        "engine.actors": actors,
        "engine.address": address,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    loaded = load_recipe(recipe, given, set_ or ())

    from flows.cli.display import conclude, watch
    from flows.stages import clean as stages

    job = stages.prepare(loaded, _parse_part(part))
    with watch() as progress:

        def tell(result: "RunResult | BaseException") -> int:
            progress.close()
            return conclude(result, as_json)

        if direct or not job.pending:
            failures = stages.clean_shards(job, progress)
            code = tell(stages.finish(job, failures))
        else:
            from flows.prefect_flow import run_with_prefect

            code = run_with_prefect(job, progress, tell)
    raise typer.Exit(code)


def _parse_part(part: str) -> tuple[int, int]:
    first, slash, count = part.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise typer.BadParameter(f"{part!r}: expected i/n with 1 <= i <= n, as in 2/8")
    return int(first) - 1, int(count)
