"""`capfilt deploy`: give the flows to Prefect, to be launched, scheduled and chained there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.options import path_argument

if TYPE_CHECKING:
    from flows.deployments import Placement

EXAMPLES = """
Examples:

  capfilt deploy                                  # serve all flows from this machine

  capfilt deploy clean recipe.yaml --cron "0 3 * * *" --tag nightly

  capfilt deploy --pool gpus && prefect worker start --pool gpus

  capfilt deploy pretrain recipe.yaml --pool gpus --after clean
"""
FlowName = Literal["clean", "download", "judge", "pretrain", "finetune", "bootstrap"]


def deploy(
    flow: Annotated[FlowName | None, typer.Argument(help="default: all of them")] = None,
    recipe: Annotated[
        Path | None, path_argument(help="recipe (YAML) whose values the form begins with")
    ] = None,
    name: Annotated[str, typer.Option(help="of the deployment")] = "capfilt",
    pool: Annotated[
        str | None, typer.Option(help="process pool, made if missing; none: serve from here")
    ] = None,
    cron: Annotated[str | None, typer.Option(help="when to run it, as in '0 3 * * *'")] = None,
    every: Annotated[
        float | None, typer.Option(min=1, metavar="SECONDS", help="run it as often as that")
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="of --cron, as in Europe/Paris")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="what the form begins with; may be repeated"),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="may be repeated")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="runs of it at a time; others wait")
    ] = None,
    after: Annotated[
        FlowName | None, typer.Option(help="run it when such a flow has finished")
    ] = None,
) -> None:
    """Give flows to Prefect: its page launches them by a form, and shows how they go.

    The server is the one that PREFECT_API_URL names. `{date}` and `{time}` in an output or an
    input are those of the run, so that a schedule makes a folder each time.
    """
    from flows.deployments import FLOWS, Placement
    from flows.recipe import RecipeError, parse_settings

    alone = recipe or cron or every or after or param
    if alone and flow is None:
        raise RecipeError(
            "a recipe, --param, a schedule or --after is of one flow: name it, as in clean"
        )
    if cron and every:
        raise RecipeError("--cron and --every are two ways to say when; give one of them")
    placement = Placement(pool, cron, every, timezone, tuple(tag or ()), limit)
    params = dict(parse_settings(param or (), "--param"))
    _deploy([flow] if flow else list(FLOWS), name, recipe, params, placement, after)


def _deploy(
    flows: list[str],
    name: str,
    recipe: Path | None,
    params: dict[str, Any],
    placement: "Placement",
    after: str | None,
) -> None:
    from flows import deployments as prefect

    prefect.check_server()
    made = [
        prefect.make_deployment(
            flow,
            name,
            (prefect.recipe_defaults(flow, recipe) if recipe else {}) | params,
            placement,
            after,
        )
        for flow in flows
    ]
    ids = prefect.put(made, placement.pool)
    prefect.end_runs_without_heartbeat()
    if after is not None:
        prefect.start_after(flows[0], ids[0], name, after)
    for deployment, made_id in zip(made, ids, strict=True):
        print(f"{deployment.full_name}: {prefect.page_of(made_id)}")
    if placement.pool:
        print(f"start a worker where runs are to work: prefect worker start -p {placement.pool}")
    else:
        print("runs start from here, as long as this goes on; end it when none is under way")
        prefect.serve_here(made)
