"""`capfilt checkpoint`: what a checkpoint is, and from one form to another."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.cli.options import (
    AsJson,
    Checkpoint,
    Public,
    Push,
    local_path,
    path_argument,
    path_option,
)
from pipeline.printable import number_of, visible

app = typer.Typer(help="Look at checkpoints, import and export them.", no_args_is_help=True)

IMPORT_EXAMPLES = """
capfilt checkpoint import model_base_caption.pth captioner --vocab vocab.txt\n
capfilt checkpoint import Salesforce/blip-itm-base-coco filter
"""

Revision = Annotated[str | None, typer.Option(help="of the hub")]
ImageSize = Annotated[
    int | None, typer.Option(help="side in pixels; positions are stretched to it")
]


@app.command()
def info(
    checkpoint: Checkpoint,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Print role, sizes, parameters and digest, and where each setting came from."""
    from models.checkpoints import locate

    folder = locate.resolve(checkpoint, revision)

    from models.checkpoints import checkpoint as checkpoints

    about = dataclasses.asdict(checkpoints.info(folder))
    if as_json:
        print(json.dumps(about))
        return
    _print(about, about.pop("sources"))


@app.command("import", epilog=IMPORT_EXAMPLES)
def import_(
    source: Annotated[str, typer.Argument(help="original .pth file, BLIP folder or hub id")],
    out: Annotated[Path, path_argument(help="new folder")],
    config: Annotated[
        Path | None, path_option(help="JSON in the original's words, where tensors do not tell")
    ] = None,
    vocab: Annotated[Path | None, path_option(help="vocab.txt of a .pth file")] = None,
    tokenizer: Annotated[Path | None, path_option(help="tokenizer folder of a .pth file")] = None,
    image_size: ImageSize = None,
    revision: Revision = None,
) -> None:
    """Turn an original or Hugging Face checkpoint into a folder of ours."""
    if vocab is not None and tokenizer is not None:
        raise typer.BadParameter("give --vocab or --tokenizer, not both")
    from models.checkpoints import checkpoint as checkpoints
    from models.checkpoints import conversion, locate
    from models.checkpoints.folder import refuse_existing
    from models.checkpoints.layout import read_stated
    from pipeline.publish.cards import facts_of, write_model_card
    from pipeline.train.state import write_checkpoint

    refuse_existing(out)
    path = local_path(source)
    if path.is_file():
        words = conversion.vocabulary(vocab or tokenizer)
        stated = read_stated(config) if config is not None else None
        imported = conversion.import_original(path, words, stated, image_size)
    elif config or vocab or tokenizer:
        raise typer.BadParameter("--config, --vocab and --tokenizer are for .pth files only")
    else:
        imported = conversion.import_folder(locate.resolve(source, revision), image_size)
    write_checkpoint(out, imported.content)
    write_model_card(out, facts_of(out, start=source))
    about = dataclasses.asdict(checkpoints.info(out))
    del about["sources"]
    _print(about, imported.sources)
    if imported.left_out:
        print(
            f"left out {number_of(len(imported.left_out), 'tensor')} that only training needs "
            "(momentum copies, queues, temperature)"
        )


@app.command()
def export(
    folder: Checkpoint,
    out: Annotated[Path, path_argument(help="new folder")],
    role: Annotated[
        Literal["captioner", "filter"] | None,
        typer.Option(help="which model of a pre-training checkpoint"),
    ] = None,
    image_size: ImageSize = None,
    revision: Revision = None,
    push: Push = None,
    public: Public = False,
) -> None:
    """Write a plain Hugging Face folder, which transformers' own class loads.

    Its card, README.md, says what it is. --push needs a token of the hub (HF_TOKEN).
    """
    from models.blip.config import ARCHITECTURES
    from models.checkpoints import conversion, locate
    from models.checkpoints.folder import refuse_existing
    from pipeline.publish.cards import facts_of, write_model_card
    from pipeline.publish.push import push as upload
    from pipeline.train.state import write_checkpoint

    refuse_existing(out)
    imported = conversion.import_folder(locate.resolve(folder, revision), image_size)
    content = conversion.for_hugging_face(imported.content, role)
    write_checkpoint(out, content)
    write_model_card(out, facts_of(out, start=folder))
    kind = ARCHITECTURES[content.role]
    print(f"wrote {visible(str(out))}: a {content.role}, for transformers' {kind}")
    if push is not None:
        print(f"pushed to {visible(upload(out, push, 'model', private=not public))}")


def _print(about: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    for name, value in about.items():
        if value is None:
            continue
        origin = f"  ({sources[name]})" if name in sources else ""
        print(f"{name:16} {value}{origin}")
    for name in sorted(sources.keys() - about.keys()):
        print(f"{name:16} from {sources[name]}")
