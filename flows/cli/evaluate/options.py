"""What the evaluating commands share: their options, and how a checkpoint is run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.options import device_of, path_option, say_loading

if TYPE_CHECKING:
    from pipeline.evaluate import EvaluateConfig

Images = Annotated[
    str | None, typer.Option(help="folder that its pictures' names start from; default: its own")
]
Split = Annotated[
    str | None, typer.Option(help="of Karpathy's raw files: test, val, or several: train+restval")
]
Result = Annotated[
    Path | None, path_option(help="JSON file to write, in the form of the data set's server")
]
Limit = Annotated[int | None, typer.Option(min=1, help="pairs at most, from the first on")]
BatchSize = Annotated[int, typer.Option(min=1, help="pictures in one pass of the model")]
MaxTokens = Annotated[int, typer.Option(min=3, max=512, help="of a text, special ones included")]
Dtype = Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="precision")]


def beside(annotations: str) -> str:
    """Return the folder of a file, where its pictures are looked for unless said otherwise."""
    from shards.store import filesystem, url_of

    fs, path = filesystem(annotations)
    return url_of(fs, path.rpartition("/")[0])


def config_of(batch_size: int, max_tokens: int, dtype: Dtype) -> "EvaluateConfig":
    """Return how a checkpoint is evaluated."""
    from pipeline.evaluate import EvaluateConfig

    return EvaluateConfig(batch_size=batch_size, max_tokens=max_tokens, **model_options(dtype))


def model_options(dtype: Dtype) -> dict[str, Any]:
    """Return in what precision, and where, a model is loaded: on a GPU, if there is one."""
    return {"dtype": dtype, "device": device_of("auto")}


def folder_of(checkpoint: str, shards: Sequence[str] | None, *files: str | None) -> Path:
    """Return a checkpoint's folder; a hub id is fetched.

    Tars and files that are not there are refused first: what follows loads torch.
    """
    from models.checkpoints import locate
    from shards.inputs.listing import list_inputs
    from shards.training.annotation_file import check_there

    if shards:
        list_inputs(shards)
    check_there(*files)
    folder = locate.resolve(checkpoint)
    say_loading()
    return folder
