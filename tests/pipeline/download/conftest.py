"""A loopback server of odd answers, and the Python that has img2dataset."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.download.fetcher.opener import Bounds
from pipeline.download.fetcher.process import Fetcher, FetcherOptions
from tests.support.http_server import in_thread
from tests.support.odd_server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of pictures and odd answers."""
    with in_thread(Server()) as serving:
        yield serving


@pytest.fixture
def url(server: Server) -> Callable[[str], str]:
    """Make the address of what it serves."""
    return lambda path: f"http://127.0.0.1:{server.server_port}/{path}"


@pytest.fixture(scope="module")
def fetcher(img2dataset: str) -> Iterator[Fetcher]:
    """The process that has img2dataset; it may ask this machine."""
    bounds = Bounds(timeout_s=10.0, deadline_s=20.0, most_bytes=1 << 20, agent="capfilt of tests")
    process = Fetcher(FetcherOptions(img2dataset, bounds, threads=16, allow_private=True))
    yield process
    process.close()


@pytest.fixture
def write_list(tmp_path: Path) -> Callable[[str, str], str]:
    """Write a list into a file; give its path."""

    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write
