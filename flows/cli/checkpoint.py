"""`capfilt checkpoint`: what a checkpoint is."""

import dataclasses
import json
from typing import Annotated

import typer

app = typer.Typer(help="Look at checkpoints.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `info` a command of its own while it is the only one."""


@app.command()
def info(
    checkpoint: Annotated[str, typer.Argument(help="BLIP folder or hub id")],
    revision: Annotated[str | None, typer.Option(help="of the hub")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Print role, sizes, parameters and digest, and where each setting came from."""
    from models import checkpoint as checkpoints
    from models import weights

    found = dataclasses.asdict(checkpoints.info(weights.resolve(checkpoint, revision)))
    if as_json:
        print(json.dumps(found))
        return
    sources = found.pop("sources")
    for name, value in found.items():
        origin = f"  ({sources[name]})" if name in sources else ""
        print(f"{name:16} {value}{origin}")
    for name in sorted(sources.keys() - found.keys()):
        print(f"{name:16} from {sources[name]}")
