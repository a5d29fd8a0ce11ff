"""A Prefect server of a command's own, which ends with the command, however that ends.

It stands between a run and nobody: it keeps its history for whoever starts a server on the same
home later (`PREFECT_HOME=… prefect server start`), listens on loopback alone, and asks for a
password that only the command has.
"""

import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flows.lock import FolderInUse, lock_folder
from shards.files.scratch import scratch_folder

DATABASE, EMPTY = "prefect.db", "empty.db"
WANTS_LOGIN = (401, 403)
ENDS_S = 5.0  # what a server has to write down what it has heard


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server under way, and the settings by which Prefect's client reaches it."""

    settings: Mapping[str, str]
    home: Path


def call(address: str, timeout_s: float) -> None:
    """Raise httpx.HTTPError where no Prefect server answers; one that wants a login is one."""
    import httpx

    try:
        answer = httpx.get(f"{address}/health", timeout=timeout_s)
    except httpx.InvalidURL as error:  # is no HTTPError
        raise httpx.HTTPError(str(error)) from error
    if answer.status_code not in WANTS_LOGIN:
        answer.raise_for_status()
        if answer.headers.get("content-type", "").startswith("text/html"):
            raise httpx.HTTPError("a web page is there; the address of a server ends in /api")


@contextmanager
def own_server(version: str) -> Iterator[OwnServer]:
    """Start a server for the block; it may take seconds until it answers.

    Its process reads a pipe that nobody writes to, and ends when we, who hold it, are gone.
    """
    with ExitStack() as leaving:
        home = leaving.enter_context(_home(version))
        password = f"capfilt:{secrets.token_urlsafe(24)}"
        port = _free_port()
        settings = {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_API_AUTH_STRING": password,
        }
        only_server = {
            "PREFECT_SERVER_API_AUTH_STRING": password,
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / DATABASE}",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_UI_ENABLED": "0",
        }
        command = [sys.executable, "-P", "-m", "flows.following.server", str(port)]
        process = subprocess.Popen(  # noqa: S603 - ours, and no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | settings | only_server,
            start_new_session=True,  # Ctrl-C is the command's to hear
        )
        leaving.callback(_end, process)
        yield OwnServer(settings, home)


def keep_empty(home: Path) -> None:
    """Keep a copy of a new database: making its tables step by step takes ten seconds.

    The server must answer, so that they are made; a database with runs in it is left alone.
    """
    if (home / EMPTY).exists():
        return
    with suppress(OSError, sqlite3.Error), tempfile.TemporaryDirectory(dir=home) as folder:
        copy = Path(folder) / EMPTY
        with sqlite3.connect(home / DATABASE) as database:
            if database.execute("SELECT count(*) FROM flow_run").fetchone()[0]:
                return
            database.execute("VACUUM INTO ?", (str(copy),))
        copy.rename(home / EMPTY)


def default_home(version: str) -> Path:
    """Return the folder with the history of this version's own servers."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "capfilt" / f"prefect-{version}"


@contextmanager
def _home(version: str) -> Iterator[Path]:
    """Hold the home of own servers; where another command holds it, or it cannot be, lend one."""
    home = Path(os.environ.get("PREFECT_HOME") or default_home(version))
    with ExitStack() as leaving:
        try:
            _hold(home, leaving)
        except (OSError, FolderInUse):
            kept, home = home / EMPTY, leaving.enter_context(scratch_folder("prefect"))
        else:
            kept = home / EMPTY
        if kept.is_file() and not (home / DATABASE).exists():
            shutil.copyfile(kept, home / DATABASE)
        yield home


def _hold(home: Path, leaving: ExitStack) -> None:
    """Hold a home, once the server of the command before has ended."""
    until = time.monotonic() + ENDS_S + 1
    while True:
        try:
            leaving.enter_context(lock_folder(home))
        except FolderInUse:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(ENDS_S + 1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Serve at the port that the first argument names, until standard input ends."""
    import uvicorn

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="critical",
        lifespan="on",
    )
    server = uvicorn.Server(config)

    def end_with_our_owner() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(ENDS_S)
        os._exit(0)

    threading.Thread(target=end_with_our_owner, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
