"""`capfilt clean` and `capfilt judge`: decide about pairs, and decide again without a model."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.faults import exit_code_of
from flows.cli.options import Address, AsJson, Direct, Engine, RecipePath, RunFolder, Set
from flows.extras import is_installed

if TYPE_CHECKING:
    from flows.cli.display.progress import RunProgress
    from flows.stages.clean import RunResult
    from shards.run.view import View

JUDGE_EXAMPLES = """
Examples:

  capfilt judge RUN --name strict --threshold web=0.6

  capfilt judge RUN --name best --keep-fraction synthetic=0.3 --write-shards

  capfilt stats RUN --view strict --against own
"""


def clean(
    recipe: RecipePath = None,
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", help="tar, folder, glob or brace pattern; may be repeated"),
    ] = None,
    output: Annotated[str | None, typer.Option(help="run folder, new or to be resumed")] = None,
    captioner: Annotated[str | None, typer.Option(help="BLIP folder or hub id")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="BLIP folder or hub id")] = None,
    engine: Engine = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Ray actors")] = None,
    address: Address = None,
    part: Annotated[str, typer.Option(help="i/n: every n-th shard, for job arrays")] = "1/1",
    direct: Direct = False,
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the statistics as JSON")] = False,
) -> None:
    """Caption, score and filter WebDataset shards; the same command takes a run up again."""
    from flows.recipe import Recipe, read_recipe

    flags = {
        "input.urls": input_,
        "output": output,
        "caption.model": captioner,
        "score.model": filter_,
        "engine.kind": engine,
        "engine.actors": actors,
        "engine.address": address,
    }
    loaded = read_recipe(Recipe, recipe, flags, set_ or ())

    from flows.cli.display.progress import RunProgress
    from flows.stages import clean as stages

    job = stages.prepare(loaded, _parse_part(part))
    with closing(RunProgress()) as progress, _said_if_stopped(progress):

        def conclude(result: "RunResult | Exception") -> int:
            progress.close()
            return _conclude(result, as_json)

        if direct or not job.pending or not _has_prefect():
            work = stages.clean_shards(job, progress)
            code = conclude(stages.finish(job, work))
        else:
            from flows.prefect_flow import run_with_prefect

            code = run_with_prefect(job, progress, conclude)
    raise typer.Exit(code)


def _has_prefect() -> bool:
    if is_installed("prefect"):
        return True
    advice = "as with --direct (pip install 'capfilt[prefect]')"
    print(f"Prefect is not installed: {advice}", file=sys.stderr)
    return False


@contextmanager
def _said_if_stopped(progress: "RunProgress") -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
        progress.stopped()
        raise


def _parse_part(part: str) -> tuple[int, int]:
    first, slash, count = part.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise typer.BadParameter(f"{part!r}: expected i/n with 1 <= i <= n, as in 2/8")
    return int(first) - 1, int(count)


def _conclude(result: "RunResult | Exception", as_json: bool) -> int:
    """Print what a run came to; return its exit code."""
    if isinstance(result, Exception):
        return exit_code_of(result)
    if as_json:
        workers = [dataclasses.asdict(worker) for worker in result.workers]
        print(json.dumps(result.statistics | {"run": result.run_url, "workers": workers}))
    else:
        from flows.cli.display.statistics import print_statistics

        print_statistics(result.run_url, result.statistics)
    if result.pending_here:
        print(f"capfilt: {result.left}", file=sys.stderr)
    return result.exit_code


def judge(
    run: RunFolder,
    name: Annotated[str, typer.Option(help="of the new view: A-Z a-z 0-9 _ -")],
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN=T", help="keep scores from T on; may be repeated"),
    ] = None,
    keep_fraction: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN=F", help="keep this share, the best; may be repeated"),
    ] = None,
    snapshot: Annotated[str | None, typer.Option(help="its id (default: the newest)")] = None,
    write_shards: Annotated[
        bool, typer.Option("--write-shards", help="write clean tars too, from the input")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Re-decide a run: a view with its own thresholds, beside the run's own decisions.

    Origins that are not named keep the run's own threshold. Nothing of the run is changed.
    """
    asked = _by_origin(threshold or (), "--threshold")
    fractions = _by_origin(keep_fraction or (), "--keep-fraction")

    from flows.cli.display.progress import watch_samples
    from pipeline.views.rejudge import rejudge
    from pipeline.views.request import ViewRequest
    from shards.run.run import Run
    from shards.run.snapshot import open_snapshot
    from shards.run.view import View

    opened = Run.open(run)
    listed = open_snapshot(opened, snapshot)
    wish = ViewRequest(name, asked, fractions, write_shards)
    total = sum(shard.counts.samples_in for shard in listed.shards)
    with watch_samples("writing clean shards" if write_shards else "judging", total) as progress:
        view, new = rejudge(opened, wish, listed, progress.add)
    thresholds = opened.identity.get("judge", {}).get("threshold", {})
    before = View(None, listed.id, thresholds, listed.shards)
    judged = {"run": opened.store.url(), "view": view.name, "new": new} | _compared(view, before)
    if as_json:
        print(json.dumps(judged))
        return
    from flows.cli.display.comparison import print_judged

    print_judged(judged)


def _by_origin(items: Iterable[str], option: str) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for item in items:
        origin, _, number = item.rpartition("=")
        if not origin:
            raise typer.BadParameter(f"{option} {item!r}: expected ORIGIN=NUMBER, as in web=0.6")
        if origin in numbers:
            raise typer.BadParameter(f"{option} is given twice for origin {origin!r}")
        try:
            numbers[origin] = float(number)
        except ValueError:
            raise typer.BadParameter(f"{option} {item!r}: {number!r} is no number") from None
    return numbers


def _compared(view: "View", before: "View") -> dict[str, Any]:
    """Set a view's rules and outcomes beside what the run decided before."""
    from shards.comparison import side_by_side

    return {
        "snapshot": view.snapshot,
        "rules": {
            origin: {
                "threshold": threshold,
                "own_threshold": before.thresholds.get(origin),
                "keep_fraction": view.keep_fractions.get(origin),
            }
            for origin, threshold in view.thresholds.items()
        },
        **side_by_side(view, before),
    }
