"""Downloading as a job: a part's result is a value, whatever becomes of img2dataset's process."""

import json
import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from flows.engines.download_worker import (
    DownloadRecords,
    DownloadSpec,
    DownloadWorker,
    PartDone,
    PartFailed,
)
from flows.engines.job import Grant
from pipeline.download.fetcher.opener import Bounds
from pipeline.download.fetcher.process import FetcherOptions
from pipeline.download.part import PartTask
from pipeline.download.prepare import ListRequest, prepare_download
from shards.download.record import Download
from shards.store import Store
from tests.support.driving import wait_until
from tests.support.http_server import in_thread
from tests.support.odd_server import Server

BOUNDS = Bounds(timeout_s=10, deadline_s=20, most_bytes=1 << 20, agent="tests")


@pytest.fixture
def download(tmp_path: Path) -> Iterator[Download]:
    """Twenty addresses of a server that answers late."""
    with in_thread(Server()) as server:
        urls = [f"http://127.0.0.1:{server.server_port}/pictures/{n}" for n in range(20)]
        (tmp_path / "list.jsonl").write_text("\n".join(json.dumps({"url": url}) for url in urls))
        store = Store(str(tmp_path / "out"))
        yield prepare_download(store, ListRequest(str(tmp_path / "list.jsonl")))


@pytest.fixture
def worker(download: Download, img2dataset: str) -> Iterator[DownloadWorker]:
    options = FetcherOptions("", BOUNDS, threads=2, allow_private=True)
    spec = DownloadSpec(download.store.url(), options, img2dataset)
    opened = pickle.loads(pickle.dumps(spec)).open(Grant())
    yield opened
    opened.close()


def test_a_process_that_dies_is_replaced_and_the_part_is_done(
    worker: DownloadWorker, download: Download
) -> None:
    results = []
    thread = Thread(target=lambda: results.append(worker.process(PartTask("00000"))))
    thread.start()
    wait_until(lambda: worker.pid is not None)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    thread.join()
    (done,) = results
    assert isinstance(done, PartDone)
    assert (done.counts.rows, done.counts.ok) == (20, 20)
    assert worker.samples >= 20
    records = DownloadRecords(download)
    assert records.look_up(PartTask("00000")) == PartDone(done.task, done.counts, 0)
    assert records.samples(done) == 20


def test_what_is_not_committed_is_looked_up_in_vain(download: Download) -> None:
    records = DownloadRecords(download)
    assert records.look_up(PartTask("00000")) is None
    assert records.samples(records.failed(PartTask("00000"), "why")) == 0


def test_an_outage_is_told_as_one(tmp_path: Path, img2dataset: str) -> None:
    (tmp_path / "list.csv").write_text("url\nhttp://127.0.0.1:9/x.jpg\n")
    store = Store(str(tmp_path / "out"))
    prepare_download(store, ListRequest(str(tmp_path / "list.csv")))
    options = FetcherOptions("", BOUNDS, allow_private=True)
    opened = DownloadSpec(store.url(), options, img2dataset).open(Grant())
    try:
        result = opened.process(PartTask("00000"))
    finally:
        opened.close()
    assert isinstance(result, PartFailed)
    assert result.outage
