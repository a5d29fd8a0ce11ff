"""`capfilt evaluate`: how good a checkpoint is on labelled pairs."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.display.progress import SampleProgress, counted, counted_by_bytes, watch_samples
from flows.cli.evaluate.labels import Labels
from flows.cli.evaluate.options import (
    BatchSize,
    Dtype,
    Images,
    Limit,
    MaxTokens,
    Result,
    Split,
    beside,
    config_of,
    folder_of,
)
from flows.cli.evaluate.outcome import check_direction, check_outcome, keep
from flows.cli.options import AsJson, Checkpoint, Method, path_option

if TYPE_CHECKING:
    from pipeline.evaluate import LabelledPair

app = typer.Typer(help="Evaluate checkpoints on labelled pairs.", no_args_is_help=True)

EXAMPLES = """
Examples:

  capfilt evaluate retrieval runs/filter/model held-out/

  capfilt evaluate caption runs/captioner/model 'held-out/*.tar' --json

  capfilt evaluate filter runs/filter/model judged/ --label is_right \\
      --precision 0.95 --plot curves.png

  capfilt evaluate retrieval runs/filter/model --images coco \\
      --annotations coco_karpathy_test.json

  capfilt evaluate caption runs/captioner/model --images nocaps \\
      --annotations nocaps_val.json --result nocaps_val_result.json
"""

Shards = Annotated[
    list[str], typer.Argument(help="tars of labelled pairs: files, folders, patterns")
]
SomeShards = Annotated[
    list[str] | None,
    typer.Argument(help="tars of labelled pairs: files, folders, patterns; or --annotations"),
]
Listed = Annotated[
    str | None,
    typer.Option("--annotations", help="JSON file or lines: Karpathy's, COCO's, nocaps'"),
]
Judge = Annotated[
    Literal["toy"] | None,
    typer.Option(help="who knows what is right: toy, for the toy world's sidecars"),
]


@app.command(epilog=EXAMPLES)
def retrieval(
    checkpoint: Checkpoint,
    shards: SomeShards = None,
    annotations: Listed = None,
    images: Images = None,
    split: Split = None,
    k: Annotated[int, typer.Option(min=1, help="best of ITC that ITM puts in order")] = 256,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = 35,
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure recall both ways of a filter or pre-training checkpoint, by ITC and by ITM."""
    folder = folder_of(checkpoint, shards, annotations)

    from flows.cli.display.numbers import print_numbers
    from pipeline.evaluate import measure_retrieval, open_retriever

    config = config_of(batch_size, max_tokens, dtype)
    with _pairs(shards, annotations, images, split, limit) as (pairs, progress):
        ranked = progress.phase("ranking")
        retriever = open_retriever(folder, config)
        numbers = measure_retrieval(retriever, pairs, batch_size, k=k, ranked=ranked)
    check_outcome(numbers, "images", annotations or ", ".join(shards or ()))
    print_numbers(numbers, as_json)


@app.command(epilog=EXAMPLES)
def caption(
    checkpoint: Checkpoint,
    shards: SomeShards = None,
    annotations: Listed = None,
    images: Images = None,
    split: Split = None,
    result: Result = None,
    method: Method = "beam",
    beams: Annotated[int, typer.Option(min=1, help="of beam search")] = 3,
    prompt: Annotated[str, typer.Option(help="what captions continue")] = "a picture of ",
    min_tokens: Annotated[int, typer.Option(min=0, help="of a caption")] = 5,
    max_tokens: Annotated[int, typer.Option(min=1, help="of a caption")] = 20,
    seed: Annotated[int, typer.Option(help="of nucleus sampling")] = 0,
    judge: Judge = None,
    java: Annotated[
        bool | None,
        typer.Option(help="split by the PTB tokenizer, and METEOR; default: if java is there"),
    ] = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare a captioner's captions with the references: BLEU, ROUGE-L, CIDEr, METEOR.

    Published numbers split texts by the PTB tokenizer, a Java program, as METEOR is. SPICE is left
    out: it would download models of its own.
    """
    if min_tokens > max_tokens:
        raise typer.BadParameter(f"--min-tokens {min_tokens} is more than {max_tokens}")
    folder = folder_of(checkpoint, shards, annotations)

    from flows.cli.display.numbers import print_numbers
    from models.decoding.config import Decoding
    from pipeline.evaluate import java_metrics, measure_captioner, open_captioner

    decoding = Decoding(
        method=method,
        beams=beams,
        prompt=prompt,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
    )
    written: list[dict[str, Any]] = []
    with _pairs(shards, annotations, images, split, limit) as (pairs, _):
        config = config_of(batch_size, 35, dtype)
        numbers = measure_captioner(
            open_captioner(folder, decoding, config, seed=seed),
            pairs,
            batch_size,
            is_right=None if judge is None else _judges(judge).caption_is_right,
            results=written,
            java=java_metrics.is_there() if java is None else java,
        )
    check_outcome(numbers, "images", annotations or ", ".join(shards or ()))
    keep(result, written)
    print_numbers(numbers, as_json)


@app.command("filter", epilog=EXAMPLES)
def filter_(
    checkpoint: Checkpoint,
    shards: Shards,
    threshold: Annotated[float, typer.Option(help="scores from it on are kept")] = 0.5,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="of the sidecar, dotted: true where the text is right; or --judge",
        ),
    ] = None,
    judge: Judge = None,
    precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="wanted: choose a threshold for it")
    ] = None,
    curves: Annotated[
        bool, typer.Option(help="add a row for each threshold to the output of --json")
    ] = False,
    plot: Annotated[Path | None, path_option(help="PNG to draw the curves into")] = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = 35,
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare a filter's scores with labels: ROC, precision and recall, calibration."""
    if (label is None) == (judge is None):
        raise typer.BadParameter("give --label or --judge, and not both")
    folder = folder_of(checkpoint, shards)

    from flows.cli.display.numbers import print_numbers
    from pipeline.evaluate import measure_filter, open_filter
    from pipeline.evaluate.curves import draw

    config = config_of(batch_size, max_tokens, dtype)
    labels = Labels(label)
    is_right = labels if judge is None else _judges(judge).pair_is_right
    with _pairs(shards, None, None, None, limit) as (pairs, _):
        numbers = measure_filter(
            open_filter(folder, config),
            pairs,
            batch_size,
            threshold=threshold,
            label=is_right,
            precision=precision,
            curves=True,
        )
    labels.check_found(numbers["images"], ", ".join(shards))
    check_outcome(numbers, "images", ", ".join(shards))
    check_direction(numbers)
    if plot is not None:
        plot.write_bytes(draw(numbers))
    if not (curves and as_json):
        del numbers["curves"]
    print_numbers(numbers, as_json)


@contextmanager
def _pairs(
    shards: Sequence[str] | None,
    annotations: str | None,
    images: str | None,
    split: str | None,
    limit: int | None,
) -> "Iterator[tuple[Iterable[LabelledPair], SampleProgress]]":
    """Read pairs out of tars, or out of an annotation file; what is taken moves the progress."""
    from pipeline.evaluate import read_pairs
    from pipeline.evaluate.rows import captioned
    from shards.training.annotation_file import read_captioned
    from shards.training.picture_name import NamesTogether

    if bool(shards) == (annotations is not None):
        raise typer.BadParameter("give tars, or --annotations, and not both")
    if annotations is None:
        if split is not None:
            raise typer.BadParameter("--split is for --annotations; leave it out")
        with watch_samples("evaluating", None) as progress:
            yield counted_by_bytes(read_pairs(shards or (), limit), progress, limit), progress
        return
    listed = read_captioned(annotations, split)
    rows, names = listed[:limit], NamesTogether(row.get("image") for row in listed)
    with watch_samples("evaluating", len(rows)) as progress:
        folder = images or beside(annotations)
        yield captioned(counted(rows, progress), folder, names), progress


def _judges(judge: str) -> ModuleType:
    """Load `pipeline.NAME.judges`, of captions and of pairs: no user of real data imports them."""
    return import_module(f"pipeline.{judge}.judges")
