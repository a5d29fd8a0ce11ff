"""`capfilt evaluate`: how good a checkpoint is on labelled pairs."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.progress import SampleProgress, counted, counted_by_bytes, watch_samples

if TYPE_CHECKING:
    from pipeline.evaluate import EvaluateConfig, LabelledPair
    from shards.training.annotation import Fields

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

Checkpoint = Annotated[str, typer.Argument(help="BLIP folder or hub id")]
Shards = Annotated[
    list[str], typer.Argument(help="tars of labelled pairs: files, folders, patterns")
]
SomeShards = Annotated[
    list[str] | None,
    typer.Argument(help="tars of labelled pairs: files, folders, patterns; or --annotations"),
]
Listed = Annotated[
    str | None, typer.Option("--annotations", help="JSON file in the form of Karpathy's split")
]
Images = Annotated[
    str | None, typer.Option(help="folder that its pictures' names start from; default: its own")
]
Result = Annotated[
    Path | None, typer.Option(help="JSON file to write, in the form of the data set's server")
]
Limit = Annotated[int | None, typer.Option(min=1, help="pairs at most, from the first on")]
BatchSize = Annotated[int, typer.Option(min=1, help="pictures in one pass of the model")]
MaxTokens = Annotated[int, typer.Option(min=3, max=512, help="of a text, special ones included")]
Judge = Annotated[
    str | None, typer.Option(help="who knows what is right: toy, for the toy world's sidecars")
]
AsJson = Annotated[bool, typer.Option("--json", help="for machines")]


class DtypeChoice(StrEnum):
    """The precision that a checkpoint runs in."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


class Method(StrEnum):
    """How captions are written."""

    BEAM = "beam"
    GREEDY = "greedy"
    NUCLEUS = "nucleus"


Dtype = Annotated[DtypeChoice, typer.Option(help="precision")]


@app.command(epilog=EXAMPLES)
def retrieval(
    checkpoint: Checkpoint,
    shards: SomeShards = None,
    annotations: Listed = None,
    images: Images = None,
    k: Annotated[int, typer.Option(min=1, help="best of ITC that ITM puts in order")] = 256,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = 35,
    dtype: Dtype = DtypeChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Measure recall both ways of a filter or pre-training checkpoint, by ITC and by ITM."""
    from pipeline.evaluate import evaluate_retrieval

    config = config_of(batch_size, max_tokens, dtype)
    with _pairs(shards, annotations, images, limit) as (pairs, progress):
        ranked = progress.phase("ranking")
        found = evaluate_retrieval(folder_of(checkpoint), pairs, config, k=k, ranked=ranked)
    tell(found, as_json)


@app.command(epilog=EXAMPLES)
def caption(
    checkpoint: Checkpoint,
    shards: SomeShards = None,
    annotations: Listed = None,
    images: Images = None,
    result: Result = None,
    method: Annotated[Method, typer.Option(help="of decoding")] = Method.BEAM,
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
    dtype: Dtype = DtypeChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Compare a captioner's captions with the references: BLEU, ROUGE-L, CIDEr, METEOR.

    Published numbers split texts by the PTB tokenizer, a Java program, as METEOR is. SPICE is left
    out: it would download models of its own.
    """
    from models.decoding.generate import Decoding
    from pipeline.evaluate import evaluate_captioner, java_metrics

    if min_tokens > max_tokens:
        raise typer.BadParameter(f"--min-tokens {min_tokens} is more than {max_tokens}")
    decoding = Decoding(
        method=method.value,
        beams=beams,
        prompt=prompt,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
    )
    written: list[dict[str, Any]] = []
    with _pairs(shards, annotations, images, limit) as (pairs, _):
        found = evaluate_captioner(
            folder_of(checkpoint),
            pairs,
            decoding,
            config_of(batch_size, 35, dtype),
            seed=seed,
            is_right=None if judge is None else _judges(judge).caption_is_right,
            results=written,
            java=java_metrics.is_there() if java is None else java,
        )
    keep(result, written)
    tell(found, as_json)


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
    plot: Annotated[Path | None, typer.Option(help="PNG to draw the curves into")] = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = 35,
    dtype: Dtype = DtypeChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Compare a filter's scores with labels: ROC, precision and recall, calibration."""
    from pipeline.evaluate import evaluate_filter
    from pipeline.evaluate.curves import draw

    config = config_of(batch_size, max_tokens, dtype)
    if label is not None and judge is None:
        is_right = _label(label)
    elif label is None and judge is not None:
        is_right = _judges(judge).pair_is_right
    else:
        raise typer.BadParameter("give --label or --judge, and not both")
    with _pairs(shards, None, None, limit) as (pairs, _):
        found = evaluate_filter(
            folder_of(checkpoint),
            pairs,
            config,
            label=is_right,
            threshold=threshold,
            precision=precision,
            curves=True,
        )
    if plot is not None:
        plot.write_bytes(draw(found))
    if not (curves and as_json):
        del found["curves"]
    tell(found, as_json)


@contextmanager
def _pairs(
    shards: Sequence[str] | None, annotations: str | None, images: str | None, limit: int | None
) -> "Iterator[tuple[Iterable[LabelledPair], SampleProgress]]":
    """Read pairs out of tars, or out of an annotation file; what is taken moves the progress."""
    from pipeline.evaluate import read_pairs
    from pipeline.evaluate.rows import captioned
    from shards.training.annotation_file import read_rows

    if bool(shards) == (annotations is not None):
        raise typer.BadParameter("give tars, or --annotations, and not both")
    if annotations is None:
        with watch_samples("evaluating", None) as progress:
            yield counted_by_bytes(read_pairs(shards or (), limit), progress, limit), progress
        return
    rows = read_rows(annotations, ("image",))[:limit]
    with watch_samples("evaluating", len(rows)) as progress:
        yield captioned(counted(rows, progress), images or beside(annotations)), progress


@contextmanager
def rows_of(
    annotations: str, fields: Sequence[str], limit: int | None
) -> "Iterator[Iterator[Fields]]":
    """Read the rows of an annotation file; what is taken of them moves the progress."""
    from shards.training.annotation_file import read_rows

    rows = read_rows(annotations, fields)[:limit]
    with watch_samples("evaluating", len(rows)) as progress:
        yield counted(rows, progress)


def beside(annotations: str) -> str:
    """Name the folder of a file, where its pictures are looked for unless said otherwise."""
    from shards.store import filesystem, url_of

    fs, path = filesystem(annotations)
    return url_of(fs, path.rpartition("/")[0])


def keep(result: Path | None, written: Sequence[Mapping[str, Any]]) -> None:
    """Write what was answered, whole or not at all."""
    if result is None:
        return
    unfinished = result.with_name(f".{result.name}.partial")
    unfinished.write_text(json.dumps(list(written)), encoding="utf-8")
    unfinished.replace(result)


def config_of(batch_size: int, max_tokens: int, dtype: DtypeChoice) -> "EvaluateConfig":
    """Say how a checkpoint is run: on a GPU, if there is one."""
    import torch

    from pipeline.evaluate import EvaluateConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return EvaluateConfig(
        batch_size=batch_size, max_tokens=max_tokens, dtype=dtype.value, device=device
    )


def folder_of(checkpoint: str) -> Path:
    """Find a checkpoint's folder; a hub id is fetched."""
    from models.checkpoints import weights

    return weights.resolve(checkpoint)


def _label(dotted: str) -> "Callable[[LabelledPair], bool | None]":
    """Read labels under a dotted key of the sidecar; what is neither true nor false is none."""

    def label(pair: "LabelledPair") -> bool | None:
        found: Any = pair.meta
        for key in dotted.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, bool) else None

    return label


def _judges(name: str) -> ModuleType:
    """Load the judges of captions and pairs that a package of the pipeline brings along."""
    try:
        return import_module(f"pipeline.{name}.judges")
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"--judge: there is no judge {name!r}") from error


def tell(found: Mapping[str, Any], as_json: bool) -> None:
    """Print numbers, as JSON or a row for each."""
    if as_json:
        print(json.dumps(found))
        return
    from pipeline.printable import visible

    rows = [(visible(name), value) for name, value in _flat(found)]  # some come from data
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {_shown(value)}")


def _flat(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


def _shown(value: float | str | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
