"""A run that Prefect follows, where its server is not there, is silent, or dies.

Each runs in a process of its own, since the process leaves by itself whatever Prefect does.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world

START = """
import logging, sys, threading
from flows import prefect_flow
from flows.prefect_flow import report_to_prefect, run_with_prefect
logging.basicConfig(format="%(message)s")
prefect_flow.START_S, prefect_flow.GRACE_S = 6.0, 0.5
"""
REPORT = """
with report_to_prefect("clean", {"seed": 0}) as reporter:
    with reporter.stage("work"):
        print("worked", reporter.is_alive())
    reporter.end("done", failed=False)
sys.exit(reporter.leave(3))
"""
LIMIT_S = 60  # a server that does not answer would keep Prefect for minutes


def run_script(tmp_path: Path, server: int, body: str, *arguments: str) -> "tuple[int, str, str]":
    """Run a script under Prefect's client of a server at a port; its exit code and output."""
    environment = os.environ | {
        "PREFECT_API_URL": f"http://127.0.0.1:{server}/api",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    ended = subprocess.run(
        [sys.executable, "-c", START + body, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=LIMIT_S,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.fixture
def absent() -> int:
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def server(answer: bytes | None) -> Iterator[int]:
    """Listen; hang up after some bytes, or say nothing at all."""
    listener, open_ones = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if answer is None:
                open_ones.append(connection)
                continue
            connection.recv(65536)
            connection.sendall(answer)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_ones:
            connection.close()


def test_work_goes_on_without_a_server(tmp_path: Path, absent: int) -> None:
    code, out, err = run_script(tmp_path, absent, REPORT)
    assert (code, out) == (3, "worked False\n"), err
    assert "Prefect failed, and the work goes on without it: " in err


def test_work_goes_on_beside_a_server_that_dies(tmp_path: Path) -> None:
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{") as port:
        code, out, err = run_script(tmp_path, port, REPORT)
    assert (code, out) == (3, "worked False\n"), err
    assert "without it" in err


def test_work_goes_on_beside_a_server_that_is_silent(tmp_path: Path) -> None:
    with server(None) as port:
        began = time.monotonic()
        code, out, err = run_script(tmp_path, port, REPORT)
    assert (code, out) == (3, "worked False\n"), err
    assert "Prefect does not answer; what is done is done without it" in err
    assert time.monotonic() - began < LIMIT_S / 2


@pytest.mark.parametrize(
    ("raised", "code"), [("SystemExit(143)", 143), ("SystemExit('why')", 1), ("ValueError(5)", 1)]
)
def test_what_is_raised_in_the_block_decides_the_exit_code(
    tmp_path: Path, absent: int, raised: str, code: int
) -> None:
    body = f"with report_to_prefect('clean', {{}}) as r, r.stage('work'):\n    raise {raised}"
    assert run_script(tmp_path, absent, body)[0] == code


def test_a_pause_that_is_answered_elsewhere_goes_on(tmp_path: Path, absent: int) -> None:
    body = """
with report_to_prefect("rounds", {}) as reporter:
    with reporter.pause("approve") as answered:
        print("answered", answered.is_set())
    reporter.end("done", failed=False)
sys.exit(reporter.leave(0))
"""
    code, out, err = run_script(tmp_path, absent, body)
    assert (code, out) == (0, "answered False\n"), err


CLEAN = """
import dataclasses
from flows.recipe import Recipe, read_recipe
from flows.stages import clean
from shards.run.commit import Counts

REJECTED = Counts(samples_in=2000, rejected=2000, rejected_by_reason={"no_image": 2000})

class Watch:
    begin = under_way = ended = lambda *_: None

def conclude(result):
    print(type(result).__name__, getattr(result, "exit_code", None))
    return 7

output, web = sys.argv[1:]
flags = {"input.urls": [web], "output": output, "engine.kind": "local"}
flags |= {"caption.model": "tiny-captioner", "score.model": "tiny-filter"}
job = clean.prepare(read_recipe(Recipe, None, flags, sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("change", "concluded"),
    [
        ("", "RunResult 0"),
        ("job.run.store.put('commits', b'no folder')", "RunResult 1"),
        ("job = dataclasses.replace(job, done=REJECTED)", "LimitExceeded 1"),
    ],
)
def test_a_cleaning_ends_by_what_its_stages_came_to(
    tmp_path: Path, absent: int, change: str, concluded: str
) -> None:
    write_toy_world(tmp_path / "web", ToyWorldConfig(samples=4, samples_per_shard=4))
    body = f"{CLEAN}{change}\nsys.exit(run_with_prefect(job, Watch(), conclude))"
    web = str(tmp_path / "web")
    code, out, err = run_script(tmp_path, absent, body, str(tmp_path / "run"), web)
    assert (code, out) == (7, f"{concluded}\n"), err
