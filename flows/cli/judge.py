"""`capfilt judge`: decide a finished run again, by other thresholds and without a model."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from shards.run.view import View

EXAMPLES = """
Examples:

  capfilt judge RUN --name strict --threshold web=0.6

  capfilt judge RUN --name best --keep-fraction synthetic=0.3 --write-shards

  capfilt stats RUN --view strict --against own
"""


def judge(
    run: Annotated[str, typer.Argument(metavar="RUN", help="run folder or URL")],
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
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Re-decide a run: a view with its own thresholds, beside the run's own decisions.

    Origins that are not named keep the run's own threshold. Nothing of the run is changed.
    """
    asked = _by_origin(threshold or (), "--threshold")
    fractions = _by_origin(keep_fraction or (), "--keep-fraction")

    from flows.cli.progress import watch_samples
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
    own = View(None, listed.id, thresholds, listed.shards)
    _tell(_judged(opened.store.url(), view, own, new), as_json)


def _by_origin(given: list[str] | tuple[str, ...], option: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in given:
        origin, _, number = item.rpartition("=")
        if not origin:
            raise typer.BadParameter(f"{option} {item!r}: expected ORIGIN=NUMBER, as in web=0.6")
        if origin in found:
            raise typer.BadParameter(f"{option} is given twice for origin {origin!r}")
        try:
            found[origin] = float(number)
        except ValueError:
            raise typer.BadParameter(f"{option} {item!r}: {number!r} is no number") from None
    return found


def _judged(run_url: str, view: "View", own: "View", new: bool) -> dict[str, Any]:
    from shards.comparison import side_by_side

    return {
        "run": run_url,
        "view": view.name,
        "new": new,
        "snapshot": view.snapshot,
        "rules": {
            origin: {
                "threshold": threshold,
                "own_threshold": own.thresholds.get(origin),
                "keep_fraction": view.keep_fractions.get(origin),
            }
            for origin, threshold in view.thresholds.items()
        },
        **side_by_side(view, own),
    }


def _tell(judged: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(judged))
        return
    from flows.cli.tables.comparison import print_judged

    print_judged(judged)
