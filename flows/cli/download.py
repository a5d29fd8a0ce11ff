"""`capfilt download`: from a list of addresses to the tars that `clean` takes."""

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import Address, Direct

if TYPE_CHECKING:
    from flows.following.reporter import Reporter
    from flows.stages.download_request import DownloadRequest

EXAMPLES = """
Examples:

  capfilt download laion.parquet web/

  capfilt download urls.csv web/ --url-column image_url --text-column alt

  capfilt download urls.csv web/ --retry  # those that failed, once more

  capfilt clean --input web/ --output runs/first --captioner C --filter F
"""
MOST_BYTES = 1 << 31
_FORM = ("url_column", "text_column", "retry", "allow_private_addresses", "engine")  # of the flow


Urls = Annotated[
    str, typer.Argument(metavar="URLS", help="Parquet, CSV, TSV or JSON lines: file, folder, glob")
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="folder of tars, new or to go on with")]
Retry = Annotated[bool, typer.Option("--retry", help="ask again for what failed")]
PartSize = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="rows in a part, and so in a tar; default: 10,000"),
]
Workers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="parts at a time; default: one per processor")
]
Threads = Annotated[
    int, typer.Option(min=1, max=1024, metavar="N", help="requests at a time, each")
]


def _bounded(size_bytes: int) -> int:
    """Refuse what is too large for an answer; as a range, its figures would crowd the help."""
    if size_bytes > MOST_BYTES:
        raise typer.BadParameter(f"{size_bytes} is not in the range 1<=x<={MOST_BYTES}")
    return size_bytes


MaxBytes = Annotated[
    int, typer.Option(min=1, metavar="N", callback=_bounded, help="of an answer, 2 GiB at most")
]
Private = Annotated[
    bool, typer.Option("--allow-private-addresses", help="of this machine and its network, too")
]
Outage = Annotated[
    bool, typer.Option("--record-outage", help="record what nobody answers for as failed")
]
AsJson = Annotated[bool, typer.Option("--json", help="print the statistics as JSON")]


def download(
    urls: Urls,
    output: Out,
    url_column: Annotated[str | None, typer.Option(help="of the addresses; else guessed")] = None,
    text_column: Annotated[str | None, typer.Option(help="of the texts; else guessed")] = None,
    retry: Retry = False,
    part_size: PartSize = None,
    workers: Workers = None,
    threads: Threads = 64,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="S", help="seconds of silence")] = 10.0,
    deadline: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="seconds for all of an answer")
    ] = 30.0,
    max_bytes: MaxBytes = 32 << 20,
    user_agent: Annotated[str | None, typer.Option(help="who we say we are")] = None,
    allow_private_addresses: Private = False,
    record_outage: Outage = False,
    img2dataset: Annotated[str | None, typer.Option(help="the Python that has it")] = None,
    engine: Annotated[str | None, typer.Option(help="local (default), or ray")] = None,
    address: Address = None,
    direct: Direct = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a list of addresses with img2dataset, into WebDataset tars that `clean` takes.

    Every row ends as ok or with a reason, in OUT/record. The same command goes on after a kill.
    """
    asked = dict(locals())  # of the names that the request has

    from flows.following.reporter import reporting
    from flows.stages.download_request import DownloadRequest, request_of

    if engine is None:
        asked["engine"] = "ray" if address or os.environ.get("RAY_ADDRESS") else "local"
    request = request_of({name: asked[name] for name in DownloadRequest.model_fields})
    with reporting("download", direct) as report:
        report.begin(_parameters(request))
        code = _run(request, report, as_json)
    raise typer.Exit(code)


def _run(request: "DownloadRequest", report: "Reporter", as_json: bool) -> int:
    """Download, as `flows/deployable/download.py` has the stages; return the exit code."""
    from flows.cli.display.download import ShownDownload, print_download
    from flows.stages import download as stages
    from flows.stages.summary import of_download

    with stages.alone_in(request.output):
        with report.stage("prepare"):
            job = stages.prepare(request)
        if not job.tasks:
            report.nothing_to_do()
        with ShownDownload(report.progress).shown() as progress:
            with report.stage("fetch the parts"):
                failures = stages.do_parts(job, progress)
            with report.stage("finish") as last:
                result = stages.finish(job, failures)
                last.result = of_download(result)
    if as_json:
        print(json.dumps(result.statistics | {"output": result.url}))
    else:
        print_download(result)
    if result.exit_code:
        print(f"capfilt: {result.left}", file=sys.stderr)
    return result.exit_code


def _parameters(request: "DownloadRequest") -> dict[str, Any]:
    """Say what is fetched as the form of the flow does."""
    from flows.following.parameters import place

    shown = request.model_dump(exclude_defaults=True, exclude={"urls", "output"})
    form = {name: shown.pop(name) for name in _FORM if name in shown}
    places = {"urls": place(request.urls), "output": place(request.output)}
    return places | form | ({"settings": shown} if shown else {})
