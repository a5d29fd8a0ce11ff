"""Commands that Prefect follows: its servers die, hang, fail or are missing, and decide nothing."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.driving import (
    Command,
    children,
    survivors,
    wait_until,
)
from tests.support.http_server import in_thread
from tests.support.prefect_server import Prefect, prefect_server

TINY = ("--captioner=tiny-captioner", "--filter=tiny-filter", "--engine=local")
LATER_S, LEAVES_S = 20, 15
GONE_S = 25  # after a SIGKILL of the command
NOTHING_LOST = "the work is done without it", "nothing else is missing"  # ends of what is told


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pairs in three shards."""
    folder = tmp_path_factory.mktemp("few")
    write_toy_world(folder, ToyWorldConfig(samples=30, samples_per_shard=10))
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs that take longer than a server to start."""
    folder = tmp_path_factory.mktemp("many")
    write_toy_world(folder, ToyWorldConfig(samples=900, samples_per_shard=15))
    return folder


@pytest.fixture(scope="module")
def first_commit_s(tmp_path_factory: pytest.TempPathFactory, few: Path) -> float:
    """How long a run without Prefect takes to its first commit."""
    command = Command([], tmp_path_factory.mktemp("direct"))
    began = time.time()
    done = command.run(*cleaning(few, command), "--direct")
    assert done.returncode == 0, done.stderr
    return min(commit_times(command)) - began


@pytest.fixture
def command(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, whose own server need not make its tables first."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    home = tmp_path / "prefect"
    home.mkdir()
    (home / "empty.db").write_bytes(empty_database.read_bytes())
    return Command([], tmp_path)


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server that stands, as one for a team does."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as server:
        yield server


def cleaning(web: Path, command: Command) -> list[str]:
    """Write a cleaning into `run`."""
    return ["clean", f"--input={web}", f"--output={command.home / 'run'}", *TINY]


def commit_times(command: Command) -> list[float]:
    return [path.stat().st_mtime for path in (command.home / "run/commits").glob("*.json")]


def endings(command: Command) -> list[str]:
    """Say how the attempts ended that committed nothing."""
    attempts = (command.home / "run/attempts").glob("*/*.json")
    records = [json.loads(path.read_text()) for path in attempts]
    return [record["ending"] for record in records if record["ending"]]


def own_runs(command: Command) -> list[tuple[str, str]]:
    """Read names and states of flow runs in the database of own servers."""
    database = command.home / "prefect/prefect.db"
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT name, state_name FROM flow_run").fetchall()


def is_running(command: Command) -> bool:
    """Whether the flow run of its own server, and the work, are on."""
    return [state for _, state in own_runs(command)] == ["Running"] and bool(commit_times(command))


def ended_by(command: Command, process: "subprocess.Popen[bytes]") -> tuple[Any, float]:
    """Wait for the end of a command; returns it, and the seconds since its last commit."""
    process.wait(150)
    ended = time.time()
    wait_until(lambda: not survivors(command.home), GONE_S)
    return command.wait(process), ended - max(commit_times(command))


class Failing(BaseHTTPRequestHandler):
    """Answers 500 to all."""

    def do_GET(self) -> None:
        self.send_error(500)

    def do_POST(self) -> None:
        self.send_error(500)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def absent() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def hanging() -> Iterator[int]:
    """A port where connections are accepted, and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def failing() -> Iterator[int]:
    """A port where every answer is 500."""
    with in_thread(ThreadingHTTPServer(("127.0.0.1", 0), Failing)) as server:
        yield server.server_address[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "server",
    [
        absent,
        pytest.param(hanging, marks=pytest.mark.nightly),
        pytest.param(failing, marks=pytest.mark.nightly),
    ],
)
def test_a_server_that_is_of_no_use_decides_nothing(
    server: Callable[[], Any],
    command: Command,
    few: Path,
    first_commit_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with server() as port:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        began = time.time()
        done, left_s = ended_by(command, command.start(*cleaning(few, command)))
    assert done.returncode == 0, done.stderr
    assert len(commit_times(command)) == 3
    assert min(commit_times(command)) - began < first_commit_s + LATER_S
    assert left_s < LEAVES_S
    assert done.stderr.count("Prefect") == sum(map(done.stderr.count, NOTHING_LOST)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "how"),
    [
        ("server", signal.SIGKILL),
        pytest.param("server", signal.SIGSTOP, marks=pytest.mark.nightly),
        pytest.param("follower", signal.SIGKILL, marks=pytest.mark.nightly),
        pytest.param("follower", signal.SIGSTOP, marks=pytest.mark.nightly),
    ],
)
def test_who_only_looks_on_may_die_or_freeze(
    who: str, how: signal.Signals, command: Command, many: Path
) -> None:
    process = command.start(*cleaning(many, command))
    wait_until(lambda: is_running(command))
    (victim,) = children(process.pid, f"flows.following.{who}")
    os.kill(victim, how)
    assert len(commit_times(command)) < 60, "the run was over before it was disturbed"
    process.wait(150)
    ended = time.time()
    if how == signal.SIGSTOP:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)  # as one that was slow
    done, _ = ended_by(command, process)
    assert done.returncode == 0, done.stderr
    assert len(commit_times(command)) == 60
    assert ended - max(commit_times(command)) < LEAVES_S
    assert done.stderr.count("Prefect") == sum(map(done.stderr.count, NOTHING_LOST)) == 1


@pytest.mark.nightly
def test_a_server_that_answers_again_hears_the_end(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    long = command.home / "long"  # than the server is frozen
    write_toy_world(long, ToyWorldConfig(samples=3000, samples_per_shard=50))
    process = command.start(*cleaning(long, command))
    wait_until(lambda: is_running(command))
    (server,) = children(process.pid, "flows.following.server")
    os.kill(server, signal.SIGSTOP)
    wait_until(lambda: "the work is done without it" in command.told())
    os.kill(server, signal.SIGCONT)
    assert len(commit_times(command)) < 60, "the run was over before the server was back"
    done, _ = ended_by(command, process)
    assert done.returncode == 0, done.stderr
    assert [state for _, state in own_runs(command)] == ["Completed"]


@pytest.mark.nightly
def test_a_command_that_is_killed_leaves_no_process(command: Command, many: Path) -> None:
    process = command.start(*cleaning(many, command))
    wait_until(lambda: is_running(command))
    assert len(survivors(command.home)) == 3  # the command, who reports, and its server
    process.kill()
    process.wait()
    wait_until(lambda: not survivors(command.home), GONE_S)
    assert [state for _, state in own_runs(command)] == ["Crashed"]


def test_what_is_wrong_is_said_as_directly(command: Command) -> None:
    wrong = cleaning(command.home / "nothing", command)
    direct, followed = command.run(*wrong, "--direct"), command.run(*wrong)
    assert direct.returncode == followed.returncode == 2
    assert direct.stderr == followed.stderr


STOPS = {signal.SIGINT: ("Cancelled", 130), signal.SIGTERM: ("Cancelled", 143)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.nightly)]
)
def test_a_command_that_is_stopped_cancels_its_flow_run(
    how: signal.Signals, command: Command, many: Path
) -> None:
    process = command.start(*cleaning(many, command))
    wait_until(lambda: is_running(command))
    process.send_signal(how)
    process.wait(60)
    wait_until(lambda: not survivors(command.home), GONE_S)
    done, (state, code) = command.wait(process), STOPS[how]
    assert done.returncode == code, done.stderr
    assert [found for _, found in own_runs(command)] == [state]


@pytest.mark.nightly
@pytest.mark.parametrize("how", [*STOPS, signal.SIGKILL])
def test_a_server_for_a_team_hears_how_a_command_ended(
    how: signal.Signals,
    command: Command,
    many: Path,
    prefect: Prefect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect.url)
    process = command.start(*cleaning(many, command))
    run = prefect.newest(f"clean {command.home / 'run'}")
    wait_until(lambda: len(commit_times(command)) >= 3)
    process.send_signal(how)
    process.wait(60)
    state, code = STOPS.get(how, ("Crashed", -signal.SIGKILL))
    assert process.returncode == code
    ended = prefect.wait(run, state, timeout_s=GONE_S)
    assert "the same" in ended["state"]["message"]
    wait_until(lambda: not survivors(command.home), GONE_S)


@pytest.mark.nightly
def test_a_command_that_is_cancelled_on_the_page_is_taken_up_by_the_same_command(
    command: Command, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect.url)
    long = command.home / "long"  # than the five seconds between two looks
    write_toy_world(long, ToyWorldConfig(samples=2400, samples_per_shard=40))
    process = command.start(*cleaning(long, command))
    run = prefect.newest(f"clean {command.home / 'run'}")
    wait_until(lambda: len(commit_times(command)) >= 3)
    prefect.cancel(run)
    process.wait(30)
    stopped = command.wait(process)
    assert stopped.returncode == 143, stopped.stderr
    assert stopped.stderr.count("cancelled on Prefect's page: stopping") == 1
    assert prefect.run(run)["state"]["name"] == "Cancelled"
    assert 3 <= len(commit_times(command)) < 60
    assert set(endings(command)) <= {"released"}
    done = command.run(*cleaning(long, command))
    assert done.returncode == 0, done.stderr
    assert len(commit_times(command)) == 60
    prefect.wait(prefect.newest(f"clean {command.home / 'run'}"), "Completed", timeout_s=GONE_S)
