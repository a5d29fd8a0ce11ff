"""`capfilt plan` and `capfilt try`: what a cleaning takes, and what it makes of pictures."""

import json
import shlex
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.clean import Candidates, Output, Part, Skip, parse_part
from flows.cli.faults import BAD_USAGE
from flows.cli.options import (
    INPUT_HELP,
    Address,
    AsJson,
    Direct,
    Engine,
    RecipePath,
    Set,
    say_loading,
)
from pipeline.printable import visible

if TYPE_CHECKING:
    from flows.recipe import Recipe
    from flows.stages.estimate.first_look import FirstLook
    from flows.stages.estimate.problems import Problem, Problems

PLAN_EXAMPLES = """
Examples:

  capfilt plan recipe.yaml

  capfilt plan recipe.yaml --set engine.actors=4 --price-per-gpu-hour 2.5

  capfilt plan --input 'web/*.tar' --output runs/first --captioner C --filter F --json
"""
TRY_EXAMPLES = """
Examples:

  capfilt try web/

  capfilt try 's3://bucket/{00000..00099}.tar' --n 500 --output look

  capfilt try web/ --captioner tiny-captioner --filter tiny-filter
"""
BUDGET_S = 30.0
CAPTIONER, FILTER = "Salesforce/blip-image-captioning-base", "Salesforce/blip-itm-base-coco"
TOYS = (
    "capfilt: for a look without the hub, toy models come with capfilt: add --captioner "
    "tiny-captioner --filter tiny-filter. They know coloured shapes alone; what they say of "
    "photographs means nothing"
)
BLOCKED = 1  # the exit code of a plan with a problem

Input = Annotated[
    list[str] | None,
    typer.Option("--input", help=INPUT_HELP),
]
Price = Annotated[float | None, typer.Option(min=0, help="in your currency")]
Captioner = Annotated[str | None, typer.Option(help="BLIP folder or hub id")]
Filter = Annotated[str | None, typer.Option("--filter", help="BLIP folder or hub id")]
Actors = Annotated[int | None, typer.Option(min=1, help="Ray actors")]


def plan(
    recipe: RecipePath = None,
    input_: Input = None,
    output: Output = None,
    captioner: Captioner = None,
    filter_: Filter = None,
    candidates: Candidates = None,
    engine: Engine = None,
    actors: Actors = None,
    address: Address = None,
    part: Part = "1/1",
    skip: Skip = None,
    direct: Direct = False,  # noqa: ARG001 - of `clean`, whose flags are taken
    set_: Set = None,
    n: Annotated[
        int | None, typer.Option(min=32, help="pictures to try, at most; default: 2,000 or more")
    ] = None,
    budget: Annotated[
        float, typer.Option(min=1, help="seconds to try them; a few more where they are slow")
    ] = BUDGET_S,
    seed: Annotated[int, typer.Option(help="of the choice of pictures")] = 0,
    price_per_gpu_hour: Price = None,
    as_json: AsJson = False,
) -> None:
    """Check a cleaning, try it on a sample, and say what it will take.

    Takes the flags of `clean` (a screening, which needs no model, is not planned). Nothing is left
    of the sample.
    """
    from flows.recipe import Recipe, read_recipe

    flags = {
        "input.urls": input_,
        "output": output,
        "candidates": candidates,
        "skip": skip,
        "caption.model": captioner,
        "score.model": filter_,
        "engine.kind": engine,
        "engine.actors": actors,
        "engine.address": address,
    }
    numbers = parse_part(part)
    loaded = read_recipe(Recipe, recipe, flags, set_ or ())
    looked = _look(loaded, BLOCKED, as_json)
    say_loading()

    from flows.cli.display.plan import SamplingProgress, plan_as_json, print_plan
    from flows.stages.estimate.plan import make_plan
    from flows.stages.estimate.sample import SampleConfig, enough_samples

    config = SampleConfig(n or enough_samples(loaded.engine), budget, seed)
    watch = SamplingProgress(config.samples, budget)
    with watch.display.shown():
        made = make_plan(loaded, numbers, config, watch, looked)
    if as_json:
        print(json.dumps(plan_as_json(made, price_per_gpu_hour)))
    else:
        print_plan(made, price_per_gpu_hour)
    raise typer.Exit(0 if made.ready else BLOCKED)


def try_(
    input_: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="tars, Parquet, folders of them or of pictures, patterns"
        ),
    ],
    n: Annotated[int, typer.Option(min=32, help="pictures")] = 200,
    output: Annotated[str, typer.Option(help="new folder: sample, report, recipe")] = "try",
    captioner: Captioner = None,
    filter_: Filter = None,
    engine: Engine = None,
    actors: Actors = None,
    address: Address = None,
    direct: Direct = False,  # noqa: ARG001 - Prefect is not told of a look
    set_: Set = None,
    seed: Annotated[int, typer.Option(help="of the choice of pictures")] = 0,
    price_per_gpu_hour: Price = None,
    as_json: AsJson = False,
) -> None:
    """Clean a random sample of your pictures: its report, a price for all, and their recipe."""
    from flows.recipe import Recipe, named_folder, read_recipe
    from flows.stages.first_checks import check_new

    folder = named_folder(output)
    flags = {
        "input.urls": input_,
        "output": f"{folder.rstrip('/')}-all",
        "caption.model": captioner or CAPTIONER,
        "score.model": filter_ or FILTER,
        "engine.kind": engine,
        "engine.actors": actors,
        "engine.address": address,
    }
    loaded = read_recipe(Recipe, None, flags, set_ or ())
    check_new(folder)
    looked = _look(loaded, BAD_USAGE, as_json, _tell_of_toys)
    say_loading()

    from flows.cli.display.plan import SamplingProgress, plan_as_json
    from flows.stages.estimate.first_look import look_at
    from flows.stages.estimate.sample import SampleConfig

    watch = SamplingProgress(n, None)
    with watch.display.shown():
        look = look_at(loaded, folder, SampleConfig(n, seed=seed), watch, looked)
    if as_json:
        files = {"run": look.run, "report": look.report, "recipe": look.recipe}
        print(json.dumps(plan_as_json(look.plan, price_per_gpu_hour) | files))
    else:
        _print_look(look, price_per_gpu_hour)
    _tell_of_toys(look.plan.problems)
    blocked = BAD_USAGE if look.plan.task is None else BLOCKED
    raise typer.Exit(0 if look.plan.ready else blocked)


def _tell_of_toys(problems: "Iterable[Problem]") -> None:
    """Say that models come along, where those that were not asked for by name are not to be had."""
    if any(model in problem.message for problem in problems for model in (CAPTIONER, FILTER)):
        typer.echo(TOYS, err=True)


def _look(
    recipe: "Recipe",
    blocked: int,
    as_json: bool,
    tell_more: "Callable[[Iterable[Problem]], None]" = lambda _: None,
) -> "Problems":
    """Tell what is wrong as far as it is seen without a model, and end with this code."""
    from flows.cli.display.plan import print_problems, problems_as_json
    from flows.stages.estimate.problems import Problems

    looked = Problems(recipe)
    if looked.named:
        if as_json:
            print(json.dumps(problems_as_json(looked.named)))
        else:
            print_problems(looked.named)
        tell_more(looked.named)
        raise typer.Exit(blocked)
    return looked


def _print_look(look: "FirstLook", price: float | None) -> None:
    from flows.cli.display.plan import print_plan
    from flows.cli.display.statistics import print_statistics

    if look.plan.sample is not None:
        print_statistics(look.run, look.plan.sample.result.statistics)
        print(f"report: {visible(look.report)}\n\nAll of it:")
    print_plan(look.plan, price)
    if look.plan.ready:
        print(f"\nTo clean all of it:\n\n  capfilt clean {shlex.quote(look.recipe)}")
