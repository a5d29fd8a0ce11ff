"""`capfilt index` and `capfilt search`: pictures by words, words by pictures, and alike ones."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.options import AsJson, Device, device_of, path_argument, path_option, say_loading
from flows.cli.predict.image import image_of
from pipeline.printable import visible
from shards.files.home import expand_home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.search.build import IndexItem
    from pipeline.search.query import SearchHit

    Results = list[tuple[str, list[SearchHit]]]  # of each query

INDEX_EXAMPLES = """
Examples:

  capfilt index runs/first --to first.index --model runs/filter/model

  capfilt index 'web/*.tar' --to web.index --kind ivf --features
"""
SEARCH_EXAMPLES = """
Examples:

  capfilt search first.index --text "a dog on a beach" --out found.png

  capfilt search first.index --image a.jpg               # texts that fit it

  capfilt search first.index --image a.jpg --for images  # pictures like it
"""
MODEL = "Salesforce/blip-itm-base-coco"
IndexModel = Annotated[
    str,
    typer.Option(
        help="filter or pre-training: folder or hub id",
        show_default="blip-itm-base-coco of Salesforce's",
    ),
]
MOST_DRAWN = 200


def index(
    sources: Annotated[
        list[str], typer.Argument(help="a finished run, or tars: files, folders, patterns")
    ],
    to: Annotated[Path, path_option(help="folder of the index; an old one is replaced")],
    model: IndexModel = MODEL,
    view: Annotated[str | None, typer.Option(help="of the run: whose kept texts")] = None,
    kind: Annotated[
        Literal["auto", "flat", "ivf"],
        typer.Option(help="flat compares all; ivf a part; auto: ivf from 20,000 on"),
    ] = "auto",
    features: Annotated[
        bool, typer.Option("--features", help="write the vectors as Parquet, too")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures in one pass")] = 32,
    max_tokens: Annotated[int, typer.Option(min=3, max=512, help="of a text")] = 35,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Index the pictures and texts of a run, or of tars, for `capfilt search`."""
    from models.checkpoints.locate import resolve
    from pipeline.search.index_folder import check_folder
    from shards.inputs.listing import list_inputs

    check_folder(to)
    if not _is_run(sources):
        if view is not None:
            raise typer.BadParameter(f"--view is for a run; {sources[0]} is none")
        list_inputs(sources)
    folder = resolve(model)
    say_loading()

    from flows.cli.display.progress import counted, counted_by_bytes, watch_samples
    from flows.lock import lock_folder
    from models.roles.retrieval import Retriever
    from pipeline.search import faiss_index
    from pipeline.search.build import IndexConfig, build

    typer.echo(f"FAISS: {faiss_index.installed()}", err=True)
    items, total = _items(sources, view)
    retriever = Retriever.load(folder, max_tokens=max_tokens, device=device_of(device))
    named = (
        str(folder.resolve()) if Path(expand_home(model)).is_dir() else model
    )  # the hub's may lie elsewhere
    about = {"model": named, "max_tokens": max_tokens, "sources": sources, "view": view}
    config = IndexConfig(kind=kind, batch_size=batch_size, features=features)
    with lock_folder(to), watch_samples("indexing", total) as progress:
        watched = counted_by_bytes(items, progress) if total is None else counted(items, progress)
        record = build(to, watched, retriever, about, config)
    if as_json:
        print(json.dumps(record))
        return
    for which in ("images", "texts"):
        part = record[which]
        tuned = f", {part['probes']} of {part['cells']} cells" if part["kind"] == "ivf" else ""
        print(f"{part['count']:,} {which}, {part['kind']}{tuned}")
    for reason, count in sorted(record["left_out"].items()):
        print(f"left out: {count:,} {reason}")


def search(
    index: Annotated[Path, path_argument(help="folder that `capfilt index` wrote")],
    text: Annotated[list[str] | None, typer.Option(help="to search for; may be repeated")] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="file, URL or - to search for; may be repeated")
    ] = None,
    wanted: Annotated[
        Literal["images", "texts"] | None,
        typer.Option("--for", help="default: what the query is not"),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=2048, help="how many are shown")] = 10,
    rerank: Annotated[
        int, typer.Option(min=0, max=2048, help="best ones that ITM puts in order; 0: none")
    ] = 32,
    probes: Annotated[
        int | None, typer.Option(min=1, help="cells of an ivf index to look into")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="folder or hub id; default: the index's own")
    ] = None,
    out: Annotated[Path | None, path_option(help="PNG of the pictures that were found")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Search an index by text or by picture: ITC finds, ITM puts the best in order."""
    if not text and not image:
        raise typer.BadParameter("give --text, or --image")

    from models.checkpoints.locate import resolve
    from pipeline.media.pictures import check_there
    from pipeline.search.index_folder import open_current

    _, record = open_current(index)
    check_there(image or ())
    folder = resolve(model or record["model"])
    say_loading()

    from models.blip.tokenizer import normalise
    from models.roles.retrieval import Retriever
    from pipeline.search.query import SearchIndex, search_image, search_text

    if not all(map(normalise, text or ())):
        raise typer.BadParameter("--text is empty")
    opened = SearchIndex(index)
    tokens = opened.record["max_tokens"]
    retriever = Retriever.load(folder, max_tokens=tokens, device=device_of(device))
    options: dict[str, Any] = {"rerank": rerank, "probes": probes}
    options |= {} if wanted is None else {"which": wanted}
    results: Results = [
        (query, search_text(opened, retriever, query, k, **options)) for query in text or ()
    ]
    results += [
        (path, search_image(opened, retriever, image_of(path), k, **options))
        for path in image or ()
    ]
    if out is not None:
        _draw(out, results)
    _print(results, as_json)


def _is_run(sources: list[str]) -> bool:
    from shards.store import Store

    return len(sources) == 1 and Store(sources[0]).exists("run.json")


def _items(sources: list[str], view: str | None) -> "tuple[Iterator[IndexItem], int | None]":
    """Open a run, or tars; the number of samples is known of a run alone."""
    from pipeline.search.build import items_of_run, items_of_tars
    from shards.training.source import SourceConfig
    from shards.training.source_reader import open_source

    if _is_run(sources):
        source = open_source(SourceConfig(run=sources[0], view=view))
        return items_of_run(source), source.rows
    return items_of_tars(sources), None


def _draw(out: Path, results: "Results") -> None:
    """Draw each query's pictures under a line of their own, 200 at most; ones gone are left out."""
    from PIL import Image

    from pipeline.media.sheet import ACROSS, sheet, small
    from pipeline.search.query import read_hit_image

    blank = Image.new("RGB", (1, 1), "white")
    cells: list[tuple[str, Image.Image]] = []
    for query, hits in results:
        cells.append((query, blank))
        pictures = ((hit, read_hit_image(hit)) for hit in hits[: max(0, MOST_DRAWN - len(cells))])
        cells += ((f"{hit.key}  {hit.cosine:.2f}", small(p)) for hit, p in pictures if p)
        cells += [("", blank)] * (-len(cells) % ACROSS)
    out.write_bytes(sheet(cells))


def _print(results: "Results", as_json: bool) -> None:
    if as_json:
        rows = [
            {"query": query, "found": [hit.as_json() for hit in hits]} for query, hits in results
        ]
        print(json.dumps(rows))
        return
    for query, hits in results:
        print(visible(query))
        print("  score     itc" if hits else "  nothing: the index has none of these")
        for hit in hits:
            score = "     -" if hit.score is None else f"{hit.score:6.2f}"
            text = "" if hit.text is None else f"  {visible(hit.text)}"
            print(f" {score}  {hit.cosine:6.3f}  {visible(hit.key)}{text}")
