"""`capfilt evaluate`: how good a checkpoint is on labelled pairs."""

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.evaluate import EvaluateConfig, LabelledPair

app = typer.Typer(help="Evaluate checkpoints on labelled pairs.", no_args_is_help=True)

EXAMPLES = """
Examples:

  capfilt evaluate retrieval runs/filter/model held-out/

  capfilt evaluate caption runs/captioner/model 'held-out/*.tar' --method beam --json

  capfilt evaluate filter runs/filter/model judged/ --label is_right
"""

Checkpoint = Annotated[str, typer.Argument(help="BLIP folder or hub id")]
Shards = Annotated[
    list[str], typer.Argument(help="tars of labelled pairs: files, folders, patterns")
]
Limit = Annotated[int | None, typer.Option(min=1, help="pairs at most, from the first on")]
BatchSize = Annotated[int, typer.Option(min=1, help="pictures in one pass of the model")]
MaxTokens = Annotated[int, typer.Option(min=3, max=512, help="of a text, special ones included")]
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
    shards: Shards,
    k: Annotated[int, typer.Option(min=1, help="best of ITC that ITM puts in order")] = 256,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = 35,
    dtype: Dtype = DtypeChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Measure recall both ways of a filter or pre-training checkpoint, by ITC and by ITM."""
    from pipeline.evaluate import evaluate_retrieval, read_pairs

    config = _config(batch_size, max_tokens, dtype)
    found = evaluate_retrieval(_folder(checkpoint), read_pairs(shards, limit), config, k=k)
    _tell(found, as_json)


@app.command(epilog=EXAMPLES)
def caption(
    checkpoint: Checkpoint,
    shards: Shards,
    method: Annotated[Method, typer.Option(help="of decoding")] = Method.BEAM,
    beams: Annotated[int, typer.Option(min=1, help="of beam search")] = 3,
    prompt: Annotated[str, typer.Option(help="what captions continue")] = "a picture of ",
    min_tokens: Annotated[int, typer.Option(min=0, help="of a caption")] = 5,
    max_tokens: Annotated[int, typer.Option(min=1, help="of a caption")] = 20,
    seed: Annotated[int, typer.Option(help="of nucleus sampling")] = 0,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    dtype: Dtype = DtypeChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Compare a captioner's captions with the references."""
    from models.decoding import Decoding
    from pipeline.evaluate import evaluate_captioner, read_pairs, toy_is_right

    if min_tokens > max_tokens:
        raise typer.BadParameter(f"--min-tokens {min_tokens} is more than {max_tokens}")
    decoding = Decoding(
        method=method.value,
        beams=beams,
        prompt=prompt,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
    )
    pairs, config = read_pairs(shards, limit), _config(batch_size, 35, dtype)
    found = evaluate_captioner(
        _folder(checkpoint), pairs, decoding, config, seed=seed, is_right=toy_is_right
    )
    if not found["judged"]:  # no sidecar says what the picture shows
        del found["judged"], found["right"]
    _tell(found, as_json)


@app.command("filter", epilog=EXAMPLES)
def filter_(
    checkpoint: Checkpoint,
    shards: Shards,
    threshold: Annotated[float, typer.Option(help="scores from it on are kept")] = 0.5,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="of the sidecar, dotted: true where the text is right (default: the toy world's)",
        ),
    ] = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = 35,
    dtype: Dtype = DtypeChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Compare a filter's scores with labels: ROC AUC, precision and recall at a threshold."""
    from pipeline.evaluate import evaluate_filter, read_pairs

    config = _config(batch_size, max_tokens, dtype)
    pairs, told = read_pairs(shards, limit), None if label is None else _label(label)
    found = evaluate_filter(_folder(checkpoint), pairs, config, threshold=threshold, label=told)
    _tell(found, as_json)


def _config(batch_size: int, max_tokens: int, dtype: DtypeChoice) -> "EvaluateConfig":
    import torch

    from pipeline.evaluate import EvaluateConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return EvaluateConfig(
        batch_size=batch_size, max_tokens=max_tokens, dtype=dtype.value, device=device
    )


def _folder(checkpoint: str) -> Path:
    from models import weights

    return weights.resolve(checkpoint)


def _label(dotted: str) -> "Callable[[LabelledPair], bool | None]":
    """Read labels under a dotted key of the sidecar; what is neither true nor false is none."""

    def label(pair: "LabelledPair") -> bool | None:
        found: Any = pair.meta
        for key in dotted.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, bool) else None

    return label


def _tell(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    rows = _flat(found)
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


def _shown(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
