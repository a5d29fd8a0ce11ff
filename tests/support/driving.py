"""Drive the real command in tests, and look at what it leaves on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psutil

from flows.cli import main

LOOPBACK = [sys.executable, str(Path(__file__).with_name("loopback.py"))]
CAPFILT = str(Path(sys.executable).with_name("capfilt"))
TIMEOUT_S = 200


@dataclass(frozen=True)
class Models:
    """Two checkpoint folders."""

    captioner: Path
    filter: Path


@dataclass(frozen=True)
class Command:
    """Runs `capfilt` as a user would, in an empty folder of its own."""

    prefix: list[str]
    home: Path

    def start(self, *arguments: str | Path) -> "subprocess.Popen[bytes]":
        """Start the command, in a process group of its own.

        Its output goes to files: daemons of a killed run would hold a pipe open.
        """
        environment = os.environ | {"PREFECT_HOME": str(self.home / "prefect"), "COLUMNS": "80"}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            return subprocess.Popen(
                [*self.prefix, CAPFILT, *map(str, arguments)],
                cwd=self.home,
                env=environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def wait(
        self, process: "subprocess.Popen[bytes]", timeout_s: float = TIMEOUT_S
    ) -> "subprocess.CompletedProcess[str]":
        """Wait for the command's end, then end what it leaves behind."""
        try:
            process.wait(timeout_s)
        finally:
            process.kill()
            end_survivors(self.home)
        out, err = (path.read_text(encoding="utf-8") for path in (self._out, self._err))
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end."""
        return self.wait(self.start(*arguments))

    def told(self) -> str:
        """Read what a command has written to standard error by now."""
        return self._err.read_text(encoding="utf-8")

    @property
    def _out(self) -> Path:
        return self.home / "out.txt"

    @property
    def _err(self) -> Path:
        return self.home / "err.txt"


@dataclass(frozen=True)
class InProcess:
    """Runs `capfilt` in this process: the same entry point, without seconds of imports."""

    home: Path
    capture: Callable[[], tuple[str, str]]

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end; an unexpected error is raised here, not printed."""
        given, folder = sys.argv, Path.cwd()
        handlers = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
        sys.argv = ["capfilt", *map(str, arguments)]
        os.chdir(self.home)
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.argv = given
            os.chdir(folder)
            for name, handler in handlers.items():
                signal.signal(name, handler)
        return subprocess.CompletedProcess(sys.argv, code, *self.capture())


def table(run: Path, name: str) -> list[tuple[object, ...]]:
    """Read a table of a run by its commits alone, in order."""
    # only what is named as a commit: a kill may leave a temporary file beside it
    commits = [json.loads(path.read_bytes()) for path in (run / "commits").glob("*.json")]
    files = [
        str(run / file["name"])
        for commit in commits
        for file in commit["files"]
        if file["table"] == name
    ]
    order = "shard, index" + ("" if name == "samples" else ", text_no")
    return duckdb.execute(f"SELECT * FROM read_parquet({files}) ORDER BY {order}").fetchall()


def committed(run: Path) -> set[str]:
    """Name the shards that are committed now."""
    folder = run / "commits"
    if not folder.is_dir():
        return set()
    return {path.stem for path in folder.iterdir() if path.suffix == ".json"}


def wait_until(condition: Callable[[], bool], timeout_s: float = 150) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true")
        time.sleep(0.05)


def children(pid: int, word: str) -> Iterator[int]:
    """Find the processes below one whose command line holds a word."""
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if word in " ".join(process.cmdline()):
                yield process.pid
        except psutil.NoSuchProcess:
            continue


def survivors(home: Path) -> list[psutil.Process]:
    """Find what still runs of commands that were started for a test's folder, Ray's own too."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT_HOME") == str(home / "prefect"):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def end_survivors(home: Path) -> None:
    """Give Ray's daemons the time to see that their driver is gone; end the rest."""
    with suppress(TimeoutError):
        wait_until(lambda: not survivors(home), timeout_s=5)
    for process in survivors(home):
        with suppress(psutil.NoSuchProcess):
            process.kill()
