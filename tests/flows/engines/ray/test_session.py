"""A Ray of our own: where it starts, and how it hears that it should end."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.engines.engine import EngineError
from flows.engines.ray.session import ray_session

SCRIPT = """
import os, signal
from pathlib import Path
from flows.engines.ray.session import ray_session

here, handler = Path.cwd(), signal.getsignal(signal.SIGTERM)
with ray_session(None) as told_to_end:
    import ray

    @ray.remote
    def where():
        return os.getcwd(), os.listdir()

    folder, listed = ray.get(where.remote())
    assert Path(folder) != here and listed == [], (folder, listed)
    assert Path.cwd() == here
    assert not told_to_end.is_set()
    os.kill(os.getpid(), signal.SIGTERM)
    assert told_to_end.wait(5)
assert not ray.is_initialized()
assert signal.getsignal(signal.SIGTERM) is handler
print("ended as expected")
"""


def test_workers_start_in_an_empty_folder_and_a_signal_is_heard(
    loopback_only: list[str], tmp_path: Path
) -> None:
    command, out = [*loopback_only, sys.executable, "-c", SCRIPT], tmp_path / "out.txt"
    with out.open("wb") as file:  # daemons would hold a pipe open
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=120, check=False)
    assert "ended as expected" in out.read_text()


def test_an_address_where_nothing_listens_is_told_at_once() -> None:
    with (
        pytest.raises(EngineError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 .*refused"),
        ray_session("127.0.0.1:9"),
    ):
        pass
