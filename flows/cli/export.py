"""`capfilt export`: a clean set to be read elsewhere, and pushed to the hub."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
Examples:

  capfilt export runs/first --to exported --form parquet

  capfilt export runs/first --view strict --to exported --push me/clean-pairs

  capfilt export runs/first --to s3://me/listed --form index  # no pictures
"""


class FormChoice(StrEnum):
    """What an export is made of."""

    WEBDATASET = "webdataset"
    PARQUET = "parquet"
    INDEX = "index"


class TextPolicy(StrEnum):
    """Which of the kept texts stands for a picture."""

    WEB_FIRST = "web_first"
    BEST = "best"
    RANDOM = "random"


def export(
    run: Annotated[str, typer.Argument(help="a finished run: folder or URL")],
    to: Annotated[str, typer.Option(help="new folder, local or of a store (URL)")],
    form: Annotated[
        FormChoice, typer.Option(help="tars, or Parquet with pictures in it, or none of them")
    ] = FormChoice.WEBDATASET,
    view: Annotated[str | None, typer.Option(help="whose decisions; default: the run's")] = None,
    text_policy: Annotated[
        TextPolicy, typer.Option(help="the one text of each picture")
    ] = TextPolicy.WEB_FIRST,
    file_mib: Annotated[int, typer.Option(min=1, help="size of a file, about")] = 512,
    push: Annotated[
        str | None, typer.Option(metavar="REPO", help="upload it to the hub, too")
    ] = None,
    public: Annotated[bool, typer.Option(help="a repo that is made by --push")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Export what a run keeps, with a card, as a set that `datasets.load_dataset` reads.

    The same command after a kill starts over, and after a broken --push goes on. --push needs a
    token of the hub (HF_TOKEN).
    """
    from pipeline.printable import visible
    from pipeline.publish import sets
    from pipeline.publish.push import push as upload
    from shards.run.run import Run
    from shards.store import Store

    config = sets.ExportConfig(
        form=form.value, text_policy=text_policy.value, file_bytes=file_mib << 20
    )
    if push is not None and not Store(to).is_local:
        raise typer.BadParameter(f"--push uploads a local folder; --to is {to}")
    record = sets.export(Run.open(run), to, config, view)
    address = None if push is None else upload(Path(to), push, "dataset", private=not public)
    if as_json:
        print(json.dumps(record | {"to": to, "pushed": address}))
        return
    what = "texts" if form is FormChoice.INDEX else "pictures"
    print(f"{record['rows']:,} {what} in {visible(to)}, pictures {record['images']}")
    if address is not None:
        print(f"pushed to {visible(address)}")
