"""`capfilt judge` and `capfilt score`: decide about a run again by any scores, and make more."""

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import Address, AsJson, Direct, Engine, RunFolder, say_loading

if TYPE_CHECKING:
    from flows.stages.score import Scored
    from pipeline.views.import_scores import Imported
    from pipeline.views.request import ViewRequest

JUDGE_EXAMPLES = """
Examples:

  capfilt judge RUN --name strict --threshold web=0.6

  capfilt judge RUN --name best --keep-fraction synthetic=0.3 --write-shards

  capfilt judge RUN --scores siglip2.parquet  # takes them in: siglip2.NAME

  capfilt judge RUN --name both --where "itm >= 0.5 and siglip2.prob >= 0.2"

  capfilt judge RUN --name first --prefer web,synthetic

  capfilt stats RUN --view strict --against own
"""

SCORE_EXAMPLES = """
Examples:

  capfilt score RUN --scorer Salesforce/blip-itm-large-coco --name large

  capfilt score RUN --scorer scorer.yaml --name large  # kind, model, max_tokens, dtype …

  capfilt score RUN --scorer google/siglip2-base-patch16-224 --name siglip2

  capfilt judge RUN --name both --where "itm >= 0.5 and large.itm >= 0.5"
"""


def judge(
    run: RunFolder,
    name: Annotated[
        str | None, typer.Option(help="of the new view: A-Z a-z 0-9 _ -; none: only --scores")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN=T", help="keep scores from T on; may be repeated"),
    ] = None,
    keep_fraction: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN=F", help="keep this share, the best; may be repeated"),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="SCORE", help="that thresholds are on (default: the run's, itm)"),
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="on scores and columns, to be met")
    ] = None,
    prefer: Annotated[
        str | None,
        typer.Option(metavar="ORIGIN,…", help="of a sample keep texts of the first that passes"),
    ] = None,
    scores: Annotated[
        str | None, typer.Option(metavar="FILE", help="Parquet of scores, to be taken in first")
    ] = None,
    scores_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="for these (default: the file's)")
    ] = None,
    snapshot: Annotated[str | None, typer.Option(help="its id (default: the newest)")] = None,
    write_shards: Annotated[
        bool, typer.Option("--write-shards", help="write clean tars too, from the input")
    ] = False,
    direct: Direct = False,
    as_json: AsJson = False,
) -> None:
    """Re-decide a run: a view with its own rules, beside the run's own decisions.

    Origins that are not named keep the run's own threshold; with --where, they have none. Nothing
    of the run is changed. A condition is Python's: and, or, not, ==, <, in, "word" in text; a score
    that is missing passes nothing.
    """
    asked = _by_origin(threshold or (), "--threshold")
    fractions = _by_origin(keep_fraction or (), "--keep-fraction")
    if name is None and scores is None:
        raise typer.BadParameter("give the new view a --name")
    if scores is None and scores_name is not None:
        raise typer.BadParameter("--scores-name names what --scores FILE takes in; give that, too")
    if scores is not None:
        imported = _take_in(run, scores, scores_name)
        if name is None or not as_json:
            _print_imported(imported, as_json)
        if name is None:
            return
    from pipeline.views.request import ViewRequest

    origins = tuple(part.strip() for part in prefer.split(",")) if prefer else ()
    request = ViewRequest(str(name), asked, fractions, write_shards, by, where, origins)
    _view(run, snapshot, request, direct, as_json)


def score(
    run: RunFolder,
    scorer: Annotated[
        str,
        typer.Option(help="folder or hub id of a BLIP filter, CLIP, SigLIP …; or a recipe (YAML)"),
    ],
    name: Annotated[str, typer.Option(help="of the scores: a-z A-Z 0-9 _, as in NAME.itm")],
    engine: Engine = None,
    address: Address = None,
    direct: Direct = False,  # noqa: ARG001 - Prefect has no flow of it; taken as by the others
    as_json: AsJson = False,
) -> None:
    """Score a finished run's texts by another model: NAME.itm, and what else it says.

    Pictures are read from the input again. After a kill, the same command goes on.
    """
    from flows.cli.display.progress import watch_samples
    from flows.recipe import EngineConfig, read_recipe
    from flows.stages import score as stages
    from shards.run.run import Run

    opened = Run.open(run)
    chosen = stages.read_scorer(scorer)
    wish = read_recipe(EngineConfig, None, {"kind": engine, "address": address})
    say_loading()
    job = stages.prepare(opened, name, chosen.scorer, wish, chosen.dtype)
    with watch_samples("scoring", job.samples) as progress:
        scored = stages.score_shards(job, progress.add)
    if as_json:
        print(json.dumps(stages.as_record(scored)))
    else:
        _print_scored(scored)
    raise typer.Exit(scored.exit_code)


def _print_scored(scored: "Scored") -> None:
    from pipeline.printable import count, number_of, visible

    for failure in scored.failures:
        print(visible(f"{failure.shard.shard}: {failure.why}"), file=sys.stderr)
    print(
        f"{', '.join(scored.scores.qualified)}: {count(scored.done)} of "
        f"{number_of(scored.of, 'shard')}"
    )
    if scored.exit_code:
        print("run the same command again to go on", file=sys.stderr)


def _view(
    run: str, snapshot: str | None, request: "ViewRequest", direct: bool, as_json: bool
) -> None:
    from flows.following.reporter import is_server_set, reporting

    with reporting("judge", direct=direct or not is_server_set()) as report:
        from flows.following.parameters import place

        report.begin(
            {
                "output": place(run),
                "name": request.name,
                "threshold": dict(request.threshold),
                "keep_fraction": dict(request.keep_fraction),
                "write_shards": request.write_clean,
                "by": request.by,
                "where": request.where,
                "prefer": list(request.prefer),
            }
        )
        with report.stage("judge") as stage:
            judged = _judge(run, snapshot, request)
            from flows.stages.summary import of_view

            stage.result = of_view(judged, place(run))
        if as_json:
            print(json.dumps(judged))
            return
        from flows.cli.display.comparison import print_judged

        print_judged(judged, run)


def _judge(run: str, snapshot: str | None, request: "ViewRequest") -> dict[str, Any]:
    from flows.cli.display.progress import watch_samples
    from flows.stages import judge as stages
    from shards.run.run import Run
    from shards.run.snapshot import open_snapshot

    opened = Run.open(run)
    listed = open_snapshot(opened, snapshot)
    total = sum(shard.counts.samples_in for shard in listed.shards)
    doing = "writing clean shards" if request.write_clean else "judging"
    with watch_samples(doing, total) as progress:
        return stages.judge(opened, listed, request, progress.add)


def _take_in(run: str, file: str, name: str | None) -> "Imported":
    from flows.cli.display.progress import watch_shards
    from pipeline.views.import_scores import import_scores
    from shards.files.home import expand_home
    from shards.run.run import Run

    opened = Run.open(run)
    with watch_shards("shards with scores") as report:
        return import_scores(opened, expand_home(file), name, report)


def _print_imported(imported: "Imported", as_json: bool) -> None:
    from pipeline.printable import number_of, percent

    names = list(imported.scores.qualified)
    if as_json:
        record = {
            "run": imported.scores.run.store.url(),
            "scores": names,
            "new": imported.new,
            "texts": imported.texts,
            "of_texts": imported.of_texts,
            "not_finite": imported.not_finite,
        }
        print(json.dumps(record))
        return
    state = "taken in" if imported.new else "were there already"
    share = percent(imported.texts, imported.of_texts)
    print(
        f"scores {', '.join(names)}: {state}, of {number_of(imported.texts, 'text')} ({share}); "
        "where one is missing, no condition on it passes"
    )


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
