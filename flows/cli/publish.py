"""`capfilt export` and `capfilt report`: what a run keeps as a set, and a page to judge it by."""

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.options import AsJson, Public, Push, RunFolder
from pipeline.printable import count, number_of, size, visible
from shards.files.home import expand_home

if TYPE_CHECKING:
    from shards.store import Store

EXPORT_EXAMPLES = """
Examples:

  capfilt export runs/first --to exported --form parquet

  capfilt export runs/first --view strict --to exported --push me/clean-pairs

  capfilt export runs/first --to listed --form index  # no pictures, but where they are

  capfilt download 'listed/data/train-*.parquet' again/  # these pictures, by their hashes
"""
GALLERY = 24
EXPLAINED = 8  # samples: on 2 cores a base filter takes a second or two for each
MOST = 60  # of each group; the page stays small enough to send by mail


def export(
    run: Annotated[str, typer.Argument(help="a finished run: folder or URL")],
    to: Annotated[str, typer.Option(help="new folder, local or of a store (URL)")],
    form: Annotated[
        Literal["webdataset", "parquet", "index"],
        typer.Option(help="tars, or Parquet with pictures in it, or a list of URLs"),
    ] = "webdataset",
    view: Annotated[str | None, typer.Option(help="whose decisions; default: the run's")] = None,
    text_policy: Annotated[
        str,
        typer.Option(help="the one text of each: web_first, best, random, first:ORIGIN,ORIGIN"),
    ] = "web_first",
    dropped: Annotated[
        bool, typer.Option("--dropped", help="list in an index what is not kept, too, apart")
    ] = False,
    file_mib: Annotated[int, typer.Option(min=1, help="size of a file, about")] = 512,
    push: Push = None,
    public: Public = False,
    as_json: AsJson = False,
) -> None:
    """Export what a run keeps, with a card, as a set that `datasets.load_dataset` reads.

    The same command after a kill starts over, and after a broken --push goes on. --push needs a
    token of the hub (HF_TOKEN).
    """
    from shards.run.run import Run
    from shards.store import Store

    opened = Run.open(run)
    if dropped and form != "index":
        raise typer.BadParameter(f"--dropped is of --form index; this is {form}")
    if push is not None and not Store(to).is_local:
        raise typer.BadParameter(f"--push uploads a local folder; --to is {to}")

    from pipeline.clean.export import check_policy
    from pipeline.publish import sets
    from pipeline.publish.push import push as upload

    try:
        check_policy(text_policy)
    except ValueError as error:
        raise typer.BadParameter(f"--text-policy {text_policy!r}: {error}") from None
    config = sets.ExportConfig(
        form=form, text_policy=text_policy, file_bytes=file_mib << 20, dropped=dropped
    )
    record = sets.export(opened, to, config, view)
    address = (
        None if push is None else upload(Path(expand_home(to)), push, "dataset", private=not public)
    )
    if as_json:
        print(json.dumps(record | {"to": to, "pushed": address}))
        return
    if not record["rows"]:
        print("capfilt: the view keeps nothing, so the set is empty", file=sys.stderr)
    _say(record, to)
    if address is not None:
        print(f"pushed to {visible(address)}")


def _say(record: Mapping[str, Any], to: str) -> None:
    if record["form"] == "index":
        apart = f"; {count(record['dropped'])} dropped ones, apart" if "dropped" in record else ""
        print(f"{number_of(record['rows'], 'picture')} listed in {visible(to)}{apart}")
    else:
        print(f"{number_of(record['rows'], 'picture')} in {visible(to)}, {record['images']}")
    if record.get("without_url"):
        print(
            f"capfilt: of them without a url, and not to be fetched by this list: "
            f"{count(record['without_url'])}",
            file=sys.stderr,
        )


def report(
    run: RunFolder,
    view: Annotated[str | None, typer.Option(help="a view's decisions, not the run's own")] = None,
    gallery: Annotated[
        int, typer.Option(min=0, max=MOST, help="samples of each outcome")
    ] = GALLERY,
    explain: Annotated[
        int,
        typer.Option(
            min=0, max=MOST, help="filtered samples whose words are explained, by the filter"
        ),
    ] = EXPLAINED,
    compare: Annotated[
        str | None,
        typer.Option(metavar="SCORE,SCORE", help="side by side; default: itm and an added one"),
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="file or URL; default: report/index.html in the run")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about a run, finished or not: numbers, scores, reasons, pictures."""
    from shards.run.run import Run
    from shards.run.view import open_view

    opened = Run.open(run)
    seen = open_view(opened, view)
    destination = None if output is None else _place_of(output)

    from pipeline.report.page import build_report, report_name

    tell = partial(print, file=sys.stderr)
    page = build_report(opened, seen, tell, gallery, explain, _pair(compare))
    store, name = destination or (opened.store, report_name(seen))
    store.put(name, page)
    if as_json:
        print(json.dumps({"report": store.url(name), "size_bytes": len(page)}))
    else:
        print(f"{store.url(name)} ({size(len(page))})")


def _place_of(output: str) -> "tuple[Store, str]":
    """Return the store and the name of a file that is to be written."""
    from shards.store import Store

    folder, _, name = output.rpartition("/")
    if name in ("", ".", "..") or Path(output).is_dir():
        raise typer.BadParameter(f"--output {output!r}: expected a file, such as report.html")
    return Store(folder or ("/" if output.startswith("/") else ".")), name


def _pair(compare: str | None) -> tuple[str, str] | None:
    if compare is None:
        return None
    names = [name.strip() for name in compare.split(",")]
    if len(names) != 2:
        raise typer.BadParameter(f"--compare {compare!r}: expected two, such as itm,siglip2.prob")
    return names[0], names[1]
