"""Drive the real command in tests, and look at what it leaves on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Start the command, in a process group of its own."""
        environment = os.environ | {"PREFECT_HOME": str(self.home / "prefect"), "COLUMNS": "80"}
        return subprocess.Popen(
            [*self.prefix, CAPFILT, *map(str, arguments)],
            cwd=self.home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end, and end what it leaves behind."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            end_group(process.pid)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@dataclass(frozen=True)
class InProcess:
    """Runs `capfilt` in this process: the same entry point, without seconds of imports."""

    home: Path
    capture: Callable[[], tuple[str, str]]

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end; an unexpected error is raised here, not printed."""
        given, handler, folder = sys.argv, signal.getsignal(signal.SIGTERM), Path.cwd()
        sys.argv = ["capfilt", *map(str, arguments)]
        os.chdir(self.home)
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.argv = given
            os.chdir(folder)
            signal.signal(signal.SIGTERM, handler)
        return subprocess.CompletedProcess(sys.argv, code, *self.capture())


def end_group(group: int) -> None:
    """Kill every process of a group that this test started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def table(run: Path, name: str) -> list[tuple[object, ...]]:
    """Read a table of a run by its commits alone, in order."""
    commits = [json.loads(path.read_bytes()) for path in (run / "commits").iterdir()]
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


def wait_until(condition: Callable[[], bool], timeout_s: float = 90) -> None:
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
