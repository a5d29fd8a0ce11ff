"""No socket of a guarded process reaches what is not public, by whatever name."""

import subprocess
import sys

import pytest

from pipeline.download.fetcher.guard import is_public
from tests.support.http_server import in_thread
from tests.support.odd_server import Server


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_public_addresses_are_public(host: str) -> None:
    assert is_public(host)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "0.1.2.3"),
        *("192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
        *("2002:7f00:1::", "2002:a00:1::", "::127.0.0.1", "64:ff9b:1::1", "2001:db8::1"),
        *("localhost", "example.org", ""),
    ],
)  # fmt: skip
def test_all_others_are_not(host: str) -> None:
    assert not is_public(host)


def test_a_guarded_process_connects_to_nothing_here() -> None:
    code = """
import socket, sys, urllib.request
from pipeline.download.fetcher import guard
guard.install()
port = int(sys.argv[1])
def tries():
    yield lambda: socket.create_connection(("127.0.0.1", port), 2)
    yield lambda: socket.create_connection(("localhost", port), 2)
    yield lambda: socket.create_connection(("2130706433", port), 2)
    yield lambda: socket.socket().connect_ex(("127.0.0.1", port))
    yield lambda: socket.socket().connect(("localhost", port))
    yield lambda: urllib.request.urlopen(f"http://127.1:{port}/pictures/a", timeout=2)
for attempt in tries():
    try:
        attempt()
    except OSError as error:
        assert "not a public address" in str(error), error
    else:
        raise SystemExit("connected")
"""
    with in_thread(Server()) as server:
        command = [sys.executable, "-c", code, str(server.server_port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert server.connections == 0
