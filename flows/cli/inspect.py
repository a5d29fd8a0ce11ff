"""Commands that look at a run: `stats` and `explain`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flows.cli.faults import exit_code_of
from flows.cli.options import AsJson, RunFolder, device_of, path_option
from flows.engines.ending import leave
from pipeline.printable import visible
from shards.files.scratch import remove_held
from shards.query.limits import MEMORY_GB, TIMEOUT_S, QueryLimitError, QueryLimits

if TYPE_CHECKING:
    from shards.comparison import ViewSide
    from shards.run.run import Run
    from shards.run.view import View

STATS_EXAMPLES = """
Examples:

  capfilt stats RUN --view strict --against own

  capfilt stats RUN --against OTHER_RUN --json

  capfilt stats RUN --sql "SELECT reason, count(*) FROM decisions GROUP BY 1"

  capfilt stats RUN --sql "SELECT text, itm FROM texts ORDER BY itm LIMIT 9"

  capfilt stats RUN --json --sql "FROM samples JOIN texts USING (shard,index)"
"""


def stats(
    run: RunFolder,
    view: Annotated[str | None, typer.Option(help="its decisions (default: own)")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="OTHER", help="compare with a view, or another run")
    ] = None,
    sql: Annotated[
        str | None, typer.Option(help="ask DuckDB about samples, texts, scores, decisions")
    ] = None,
    sql_timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="that the question may take")
    ] = TIMEOUT_S,
    sql_memory: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="GB", help="that it may take; ten times this in temporary files"
        ),
    ] = MEMORY_GB,
    as_json: AsJson = False,
) -> None:
    """Count a run, finished or not: samples, texts by origin, shards; or ask it in SQL."""
    if sql is not None and against is not None:
        raise typer.BadParameter("--sql asks one view; leave out --against")
    from shards.run.run import Run
    from shards.run.view import open_view

    opened = Run.open(run)
    here = open_view(opened, view)
    if sql is not None:
        _answer(opened, here, sql, QueryLimits(sql_timeout, sql_memory, _leave), as_json)
    elif against is not None:
        _compare(opened, here, against, as_json)
    else:
        _count(opened, here, as_json)


def _count(run: "Run", view: "View", as_json: bool) -> None:
    from shards.statistics import run_statistics

    statistics = run_statistics(run, view)
    if view.name is not None:
        statistics |= {"view": view.name, "snapshot": view.snapshot, "thresholds": view.thresholds}
        statistics |= view.basis.as_json()
    if as_json:
        print(json.dumps(statistics))
        return
    from flows.cli.display.statistics import print_statistics

    print_statistics(run.store.url(), statistics)
    if view.name is not None:
        from flows.cli.display.comparison import rules_line

        print(f"view: {view.name} ({visible(rules_line(statistics))}), on snapshot {view.snapshot}")


def _answer(run: "Run", view: "View", sql: str, limits: QueryLimits, as_json: bool) -> None:
    from flows.cli.display.sql import print_answer, print_answer_as_json
    from shards.query.query import connect, run_query
    from shards.run.scoring.score_set import with_scores
    from shards.schema import ALL_SCHEMAS

    shards = with_scores(run, view.shards)
    with connect(run, shards, ALL_SCHEMAS, limits) as connection:
        try:
            answer = run_query(connection, sql, limits)
            if as_json:
                print_answer_as_json(answer)
            else:
                print_answer(answer)
        except QueryLimitError as error:
            _leave(error)  # to close the connection may take as long again


def _leave(error: QueryLimitError) -> NoReturn:
    """End the process under a question that may not let itself be ended."""
    code = exit_code_of(error)
    remove_held()
    leave(code, at_once=True)


def _compare(run: "Run", here: "View", against: str, as_json: bool) -> None:
    from shards.comparison import ViewSide, compare

    compared = compare(ViewSide(run, here), _other_side(run, against))
    if as_json:
        print(json.dumps(compared))
        return
    from flows.cli.display.comparison import print_comparison

    print_comparison(compared)


def _other_side(run: "Run", against: str) -> "ViewSide":
    """Find what OTHER means: a view of this run, or else another run's own decisions."""
    from shards.comparison import ViewSide
    from shards.run.run import NotARun, Run
    from shards.run.view import OWN, ViewError, open_view, view_names

    if against == OWN or against in view_names(run):
        return ViewSide(run, open_view(run, against))
    try:
        other = Run.open(against)
    except NotARun as error:
        there = ", ".join([OWN, *view_names(run)])
        raise ViewError(f"{against!r} is no view of this run ({there}), and {error}") from error
    return ViewSide(other, open_view(other))


def explain(
    run: RunFolder,
    sample: Annotated[str, typer.Argument(metavar="SHARD/KEY", help="as in the input, or encoded")],
    words: Annotated[
        bool, typer.Option("--words", help="what each word does to the match, by the filter")
    ] = False,
    picture: Annotated[
        Path | None,
        path_option(help="PNG of where the filter looked for the words that sank the match"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="where the run's filter lies now; default: where it lay")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one sample: facts, every text with its scores, what each view decides, and why.

    --words and --picture load the run's filter, and read the picture again from the input.
    """
    from flows.cli.display.sql import plain
    from pipeline.explain.sample import explain as explained
    from shards.run.run import Run

    opened = Run.open(run)
    explanation = explained(opened, sample)
    if words or picture is not None:
        _explain_words(opened, explanation["samples"], model, picture)
    if as_json:
        print(json.dumps(plain(explanation)))
        return
    from flows.cli.display.explanation import print_explanation

    print_explanation(explanation)


def _explain_words(
    run: "Run", samples: "Iterable[Any]", model: str | None, out: Path | None
) -> None:
    """Add to each text what its words do, and draw; say why where the picture is not to be had."""
    from pipeline.explain.match import draw, explain_texts, open_explainer, read_sample_image

    explainer = open_explainer(run, model, device_of("auto"))
    for sample in samples:
        image = read_sample_image(run, sample)
        if isinstance(image, str):
            typer.echo(f"no words, no picture: {visible(image)}", err=True)
            continue
        explained = explain_texts(explainer, image, sample["texts"])
        for text, explanation in zip(sample["texts"], explained, strict=True):
            words = explanation.ablation.words
            text["words"] = [{"text": word.text, "effect": word.effect} for word in words]
        if out is not None and explained:
            out.write_bytes(draw(explainer, image, explained))
            typer.echo(f"wrote {visible(str(out))}", err=True)
