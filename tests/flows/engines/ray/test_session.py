"""A Ray of our own: where it starts, and how it hears that it should end."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flows.engines.ray.session import ray_session
from shards.errors import UsageError

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


def test_an_address_where_no_head_listens_is_told_at_once() -> None:
    with (
        pytest.raises(UsageError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 "),
        ray_session("127.0.0.1:9"),
    ):
        pass


JOINING = """
import os, subprocess, sys
from flows.engines.ray.session import ray_session

ray = os.path.join(os.path.dirname(sys.executable), "ray")
head = [ray, "start", "--head", "--num-cpus=1", "--port=6380", "--include-dashboard=false",
        "--node-ip-address=127.0.0.1"]
subprocess.run(head, check=True)
with ray_session("127.0.0.1:6380"):
    import ray as joined
    cpus = joined.cluster_resources()["CPU"]
print("joined", cpus, flush=True)
os._exit(0)
"""


def test_a_cluster_that_asks_for_this_users_token_is_joined(
    loopback_only: list[str], tmp_path: Path
) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    out = tmp_path / "out.txt"
    with out.open("wb") as file:  # daemons would hold a pipe open
        command = [*loopback_only, sys.executable, "-c", JOINING]
        started = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        started.wait(120)
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("HOME") == str(tmp_path):
                process.kill()
    assert "joined 1.0" in out.read_text()
