"""A real Prefect server with a page, a worker of a process pool, and what a person does there."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.driving import CAPFILT

PREFECT = str(Path(sys.executable).with_name("prefect"))
POOL = "toys"
START_S, ENDS_S = 90, 10


@dataclass
class Prefect:
    """A server that answers; `environment` is what its clients need."""

    home: Path
    url: str
    environment: dict[str, str]
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def capfilt(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run the command, which finds the server."""
        return subprocess.run(
            [CAPFILT, *map(str, arguments)],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """Start a worker of the pool, in a folder whose models/ is somebody else's."""
        folder = self.home / "worker"
        (folder / "models").mkdir(parents=True, exist_ok=True)
        (folder / "models" / "__init__.py").write_text("raise RuntimeError('a stranger')")
        with (self.home / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [PREFECT, "worker", "start", "-p", POOL, "--name", f"w{len(self.workers)}"],
                cwd=folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def get(self, path: str) -> Any:
        """Ask the API."""
        return httpx.get(f"{self.url}/{path}", timeout=30).raise_for_status().json()

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Tell the API; a database that is locked is asked again, as clients must."""
        for _ in range(5):
            answer = httpx.post(f"{self.url}/{path}", json=body, timeout=30)
            if answer.status_code < 500:
                break
            time.sleep(1)
        return answer

    def deployment(self, name: str) -> Any:
        """Find a deployment, as FLOW/NAME."""
        return self.get(f"deployments/name/{name}")

    def ask(self, name: str, **parameters: Any) -> httpx.Response:
        """Ask for a run of a deployment."""
        made = self.deployment(name)["id"]
        return self.post(f"deployments/{made}/create_flow_run", parameters=parameters)

    def launch(self, name: str, **parameters: Any) -> str:
        """Launch a run of a deployment; returns its id."""
        answer = self.ask(name, **parameters)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def run(self, run: str) -> Any:
        """Read a flow run."""
        return self.get(f"flow_runs/{run}")

    def newest(self, name: str, timeout_s: float = 60) -> str:
        """Wait for a flow run of that name, which it has once it runs; returns its id."""
        until = time.monotonic() + timeout_s
        wanted = {"flow_runs": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC"}
        while not (found := self.post("flow_runs/filter", **wanted).json()):
            assert time.monotonic() < until, f"no flow run is named {name}"
            time.sleep(0.3)
        return str(found[0]["id"])

    def wait(self, run: str, *states: str, timeout_s: float = 120) -> Any:
        """Wait until a flow run is in one of the states; returns it."""
        until = time.monotonic() + timeout_s
        while (found := self.run(run))["state"]["name"] not in states:
            over = found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            assert not over, (found["state"], self.told())
            assert time.monotonic() < until, (found["state"], self.told())
            time.sleep(0.3)
        return found

    def cancel(self, run: str) -> None:
        """Cancel a flow run, as the page's button does."""
        answer = self.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
        assert answer.status_code in (200, 201), answer.text

    def of(self, what: str, run: str) -> list[Any]:
        """List the artifacts, logs or task runs of a flow run."""
        key = {"artifacts": "flow_runs", "task_runs": "flow_runs", "logs": "logs"}[what]
        wanted = {"id" if key == "flow_runs" else "flow_run_id": {"any_": [run]}}
        found: list[Any] = self.post(f"{what}/filter", **{key: wanted}).json()
        return found

    def told(self) -> str:
        """Read the end of the worker's log."""
        path = self.home / "worker.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""


@contextmanager
def prefect_server(home: Path, **settings: str) -> Iterator[Prefect]:
    """Start `prefect server start`, on loopback, and end it with its workers."""
    home.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_UI_API_URL": url,
        "PREFECT_UI_URL": f"http://127.0.0.1:{port}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "DO_NOT_TRACK": "1",
        **settings,
    }
    with ExitStack() as leaving:
        log = leaving.enter_context((home / "server.log").open("wb"))
        command = [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        leaving.callback(end, server)
        until = time.monotonic() + START_S
        while not answers(url):
            assert server.poll() is None, (home / "server.log").read_text()
            assert time.monotonic() < until, (home / "server.log").read_text()
            time.sleep(0.2)
        prefect = Prefect(home, url, environment)
        try:
            yield prefect
        finally:
            for worker in prefect.workers:
                end(worker)


def answers(url: str) -> bool:
    """Whether a server is healthy."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and its group."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(ENDS_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
