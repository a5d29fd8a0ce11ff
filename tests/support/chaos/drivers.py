"""Drivers of the real command: forked from a process that has all imports, or started anew."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psutil

from tests.support.driving import survivors

# All that a driver imports, libraries' own late imports too, so that a fork has it in no time. None
# of them may start a thread that a fork would miss.
PRELOADED = [
    "duckdb",
    "flows.cli",
    "flows.cli.display.progress",
    "flows.cli.display.statistics",
    "flows.engines.local",
    "flows.stages.clean",
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.PpmImagePlugin",
    "ray",
    "rich._emoji_codes",
    "s3fs",
    "sympy",
    "tests.support.chaos.drivers",
    "torch._dynamo",
]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


def kill(pid: int) -> None:
    """Strike a process dead, if it lives, and wait until it does nothing more."""
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.001)


class Driver:
    """`capfilt` in a fork of a process that has everything imported: it starts in half a second."""

    def __init__(
        self, arguments: Sequence[str], home: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        home.mkdir(parents=True)
        self._home = home
        marked = {**(environment or {}), "PREFECT_HOME": str(home / "prefect")}
        work = (list(arguments), str(home), marked)
        self._process: ForkServerProcess = _context.Process(target=_run, args=work, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """Return its process's id."""
        assert self._process.pid is not None
        return self._process.pid

    def running(self) -> bool:
        """Return whether its process lives, frozen or not."""
        return self._process.is_alive()

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; return the exit code, or None where it goes on."""
        self._process.join(timeout_s)
        return self._process.exitcode

    def clear_away(self) -> None:
        """End what it leaves behind: daemons of Ray see its end, though not at once."""
        for process in survivors(self._home):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def complaints(self) -> str:
        """Return what it wrote to its standard error."""
        path = self._home / "err.txt"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _run(arguments: list[str], home: str, environment: dict[str, str]) -> None:
    """Be `capfilt` from here on, in a folder of its own."""
    os.chdir(home)
    os.environ.update(environment)
    for name, stream in (("out.txt", 1), ("err.txt", 2)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, stream)
        os.close(file)
    sys.argv = ["capfilt", *arguments]
    from flows.cli import main

    main()
