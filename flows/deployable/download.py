"""`download`: fetch a list of addresses with img2dataset, into tars that `clean` takes."""

from typing import TYPE_CHECKING, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State

from flows.deployable.flow_run import FlowRun, dated, name_run

if TYPE_CHECKING:
    from flows.engines.download_worker import PartFailed
    from flows.stages.download import DownloadJob
    from flows.stages.summary import Summary


@flow(name="download", flow_run_name=name_run, persist_result=False)
def download(
    urls: str,
    output: str,
    url_column: str = "",
    text_column: str = "",
    retry: bool = False,
    allow_private_addresses: bool = False,
    engine: Literal["local", "ray"] = "local",
    settings: dict[str, Any] | None = None,
) -> State[Any] | None:
    """Fetch the pictures of a list; one that was cut off is taken up by the same form.

    Args:
        urls: Parquet, CSV, TSV or JSON lines: a file, folder or pattern, as the machines reach it.
        output: The folder of tars, new or to be taken up: a whole path, or a URL (s3://...).
        url_column: Where the addresses stand; empty is guessed.
        text_column: Where the texts stand; empty is guessed.
        retry: Ask again for what failed before.
        allow_private_addresses: Of the machine and its network, too.
        engine: Where the work runs.
        settings: Other options of the command, as {"threads": 128, "timeout": 5}.
    """
    form = {
        "urls": dated(urls),
        "output": dated(output),
        "url_column": url_column or None,
        "text_column": text_column or None,
        "retry": retry,
        "allow_private_addresses": allow_private_addresses,
        "engine": engine,
    }
    with FlowRun("download") as run:
        job = run.stage("prepare", _prepare, form, settings or {})
        failures = run.stage("fetch the parts", _fetch, job, run)
        run.end(run.stage("finish", _finish, job, failures))
    return run.state


def _prepare(form: dict[str, Any], settings: dict[str, Any]) -> "DownloadJob":
    from flows.deployable.parameters import check_places
    from flows.stages import download as stages
    from flows.stages.download_request import request_of

    check_places(form)
    request = request_of(form | settings)
    with stages.alone_in(request.output):
        return stages.prepare(request)


def _fetch(job: "DownloadJob", run: FlowRun) -> "tuple[PartFailed, ...]":
    from flows.stages import download as stages
    from flows.stages.progress import DownloadProgress

    with stages.alone_in(job.request.output):
        return stages.do_parts(job, DownloadProgress(run.progress))


def _finish(job: "DownloadJob", failures: "tuple[PartFailed, ...]") -> "Summary":
    from flows.stages import download as stages
    from flows.stages.summary import of_download

    return of_download(stages.finish(job, failures))
