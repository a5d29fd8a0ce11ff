"""The process that reports: what it says of an order or a server that is no good, and its end.

What it reports is seen by tests/end_to_end/test_following.py, on real commands.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flows.deployments import FLOWS as DEPLOYED
from flows.following.follower import FLOWS
from tests.support.http_server import in_thread

SOON_S = 60  # with the import of Prefect


class Healthy(BaseHTTPRequestHandler):
    """Says that it is well, and no more."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that answers."""
    with in_thread(ThreadingHTTPServer(("127.0.0.1", 0), Healthy)) as server:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_address[1]}/api")
        yield


@contextmanager
def follower() -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-P", "-m", "flows.following.follower"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_every_flow_that_is_deployed_can_be_followed() -> None:
    assert set(FLOWS) == DEPLOYED.keys()


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("order", "why"),
    [
        ({"flow": "cleen", "parameters": {}}, "no flow is named 'cleen'; expected one of clean,"),
        ({"flow": "judge"}, "missing 1 required positional argument: 'parameters'"),
    ],
)
def test_an_order_that_is_no_good_is_told(order: dict[str, Any], why: str) -> None:
    with follower() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()  # and not closed, as by a command that is gone
        message = json.loads(process.stdout.readline())
        assert message["trouble"].startswith("Prefect failed: ")
        assert why in message["trouble"]
        assert process.wait(SOON_S) == 0


def test_it_leaves_with_its_command_although_no_server_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # nobody listens there
    with follower() as process:
        out, _ = process.communicate(b"", SOON_S)
    assert (process.returncode, out) == (0, b'{"ended": true}\n')
