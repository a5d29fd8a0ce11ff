"""`capfilt report`: the page to judge a cleaning by."""

import json
import sys
from typing import Annotated

import typer

from flows.cli.inspect import RunFolder

COUNT = 24
EXPLAINED = 8  # samples: on 2 cores a base filter takes a second or two for each
MOST = 60  # of each group; the page stays small enough to send by mail


def report(
    run: RunFolder,
    view: Annotated[str | None, typer.Option(help="a view's decisions, not the run's own")] = None,
    gallery: Annotated[int, typer.Option(min=0, max=MOST, help="samples of each outcome")] = COUNT,
    explain: Annotated[
        int,
        typer.Option(
            min=0, max=MOST, help="filtered samples whose words are explained, by the filter"
        ),
    ] = EXPLAINED,
    output: Annotated[
        str | None, typer.Option(help="file or URL; default: report/index.html in the run")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Write one HTML page about a run, finished or not: numbers, scores, reasons, pictures."""
    from pipeline.printable import size
    from pipeline.report.page import build_report, report_name
    from shards.run.run import Run
    from shards.run.view import open_view
    from shards.store import Store

    opened = Run.open(run)
    seen = open_view(opened, view)
    page = build_report(opened, seen, _tell, gallery, explain)
    store, name = opened.store, report_name(seen)
    if output is not None:
        folder, _, name = output.rpartition("/")
        if name in ("", ".", ".."):
            raise typer.BadParameter(f"--output {output!r}: expected a file, such as report.html")
        store = Store(folder or ("/" if output.startswith("/") else "."))
    store.put(name, page)
    if as_json:
        print(json.dumps({"report": store.url(name), "size_bytes": len(page)}))
    else:
        print(f"{store.url(name)} ({size(len(page))})")


def _tell(what: str) -> None:
    print(what, file=sys.stderr)
