"""A server of a command's own: its home, its password, its end."""

import base64
import shutil
import sqlite3
import subprocess
import sys
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest

from flows.following.server import DATABASE, EMPTY, call, default_home, keep_empty, own_server
from flows.lock import lock_folder
from tests.support.driving import survivors, wait_until
from tests.support.prefect_server import answers

OWNER = """
import time
from flows.following.server import own_server
with own_server("of a test") as server:
    print(server.settings["PREFECT_API_URL"], flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an empty database made ready."""
    home = tmp_path / "prefect"
    home.mkdir()
    shutil.copyfile(empty_database, home / EMPTY)
    monkeypatch.setenv("PREFECT_HOME", str(home))
    return home


@pytest.mark.slow
def test_it_answers_only_who_has_its_password(home: Path) -> None:
    with own_server("of a test") as server:
        assert server.home == home
        url = server.settings["PREFECT_API_URL"]
        assert url.startswith("http://127.0.0.1:")
        wait_until(lambda: answers(url))
        asked = f"{url}/flow_runs/filter"
        assert httpx.post(asked, json={}).status_code == 401
        secret = server.settings["PREFECT_API_AUTH_STRING"]
        known = {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}
        assert httpx.post(asked, json={}, headers=known).json() == []
    assert not answers(url)
    assert survivors(home.parent) == []


def test_it_ends_with_a_command_that_is_killed(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().startswith(b"http://")
        assert psutil.Process(owner.pid).children()
        owner.kill()
    wait_until(lambda: not survivors(home.parent), 20)


def test_a_home_that_another_command_holds_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.following.server.ENDS_S", -1.0)  # so long its end is waited for
    with lock_folder(home), own_server("of a test") as server:
        assert server.home != home
        assert (server.home / DATABASE).read_bytes() == (home / EMPTY).read_bytes()
    assert not server.home.exists()
    assert not (home / DATABASE).exists()


def test_a_home_that_cannot_be_one_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prefect").write_text("a file where Prefect wants its folder")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with own_server("of a test") as server:
        assert server.home.is_dir()
    assert not server.home.exists()


def test_only_a_database_without_a_run_is_kept_as_empty(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute("CREATE TABLE flow_run (name)")
        database.execute("INSERT INTO flow_run VALUES ('clean')")
    keep_empty(tmp_path)
    assert not (tmp_path / EMPTY).exists()
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute("DELETE FROM flow_run")
    keep_empty(tmp_path)
    with sqlite3.connect(tmp_path / EMPTY) as copy:
        assert copy.execute("SELECT count(*) FROM flow_run").fetchall() == [(0,)]
    assert {path.name for path in tmp_path.iterdir()} == {DATABASE, EMPTY}


def test_histories_of_two_versions_lie_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_home("3.8.8") == Path("/state/capfilt/prefect-3.8.8")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_home("4.0") == Path("/home/somebody/.local/state/capfilt/prefect-4.0")


@pytest.mark.parametrize(
    ("status", "lives"), [(200, True), (401, True), (404, False), (503, False)]
)
def test_a_server_that_wants_a_login_lives(status: int, lives: bool) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/api/health" else 418)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.handle_request, daemon=True).start()
        with nullcontext() if lives else pytest.raises(httpx.HTTPStatusError):
            call(f"http://127.0.0.1:{server.server_port}/api", 5)


def test_a_web_page_is_no_server() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(httpx.HTTPError, match="ends in /api"):
            call(f"http://127.0.0.1:{server.server_port}", 5)


def test_an_address_that_is_none_is_no_server() -> None:
    with pytest.raises(httpx.HTTPError, match="non-printable"):
        call("http://ho\nst/api", 5)
