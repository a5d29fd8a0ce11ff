"""`capfilt deploy`: what it refuses; tests/end_to_end/test_prefect.py has what it makes."""

import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.driving import CAPFILT, InProcess


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--cron=0 3 * * *",), "is of one flow: name it"),
        (("clean", "--cron=0 3 * * *", "--every=20"), "give one of them"),
        (("clean", "--param=output"), "--param output: expected NAME=VALUE"),
        (("wash",), "'wash'"),
    ],
)
def test_bad_usage(capfilt: InProcess, flags: tuple[str, ...], why: str) -> None:
    done = capfilt.run("deploy", *flags)
    assert done.returncode == 2
    assert why in done.stderr


@pytest.mark.parametrize("listens", [None, False, True])
def test_without_a_server_it_says_how_to_have_one(tmp_path: Path, listens: bool | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not listens:
            listener.close()
        environment = {"HOME": str(tmp_path), "PREFECT_API_REQUEST_TIMEOUT": "2"}
        if listens is not None:
            environment["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        done = subprocess.run(
            [CAPFILT, "deploy", "clean"], env=environment, capture_output=True, text=True
        )
    assert done.returncode == (2 if listens is None else 1)
    (line,) = done.stderr.splitlines()
    assert "prefect server start" in line
    assert ("no Prefect server is set" if listens is None else "does not answer") in line
