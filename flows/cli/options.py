"""The options that several commands share, each said once."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from shards.files.home import expand_home


def local_path(given: str | Path) -> Path:
    """Read a path of the command line, or of a default: what its `~` stands for, and never ""."""
    if given == "":
        raise typer.BadParameter("it is empty, and names no file or folder; give a path")
    return Path(expand_home(str(given)))


path_option = partial(typer.Option, parser=local_path)
path_argument = partial(typer.Argument, parser=local_path)
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="run folder or URL")]
Checkpoint = Annotated[str, typer.Argument(help="BLIP folder or hub id")]
RecipePath = Annotated[Path | None, path_argument(help="recipe (YAML); flags go over it")]
Set = Annotated[list[str] | None, typer.Option("--set", help="a.b=c, any key of the recipe")]
Engine = Annotated[str | None, typer.Option(help="ray, local, or auto")]
Address = Annotated[str | None, typer.Option(help="of a running Ray cluster")]
INPUT_HELP = (
    "tar, Parquet with pictures, folder of these or of pictures, glob or brace pattern; may be "
    "repeated"
)
Direct = Annotated[bool, typer.Option("--direct", help="without Prefect")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
Push = Annotated[str | None, typer.Option(metavar="REPO", help="upload it to the hub, too")]
Public = Annotated[bool, typer.Option(help="a repo that is made by --push")]
AsJson = Annotated[bool, typer.Option("--json", help="for machines")]
Method = Annotated[Literal["beam", "greedy", "nucleus"], typer.Option(help="of decoding")]


def say_loading() -> None:
    """Say what takes the next seconds, on a terminal: nothing else is seen until work begins."""
    if sys.stderr.isatty():
        print("loading libraries and models …", file=sys.stderr, flush=True)


def device_of(name: str) -> str:
    """Return the device that --device names; auto is a GPU, if torch sees one.

    Raises DeviceError where a GPU is named and torch sees none.
    """
    import torch

    from models.devices import choose_device

    if name == "auto":
        return str(choose_device())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise typer.BadParameter(f"--device {name}: {error}") from None
    if device.type == "cuda":
        choose_device("cuda")
    return name
