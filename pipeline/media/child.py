"""A child process for work on hostile bytes, whose crash, hang or greed ends only itself.

Nothing but plain bytes goes to and fro: a child that a hostile file has taken over cannot make its
parent run anything.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Self

from shards.errors import CapfiltError

START_TIMEOUT_S = 60.0
MESSAGE_BYTES = 64 * 1024

# What a child needs of our environment; it gets no one's credentials.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "LANG", "SYSTEMROOT")


class GuardError(CapfiltError, RuntimeError):
    """A child that cannot even start: the machine's fault, not a file's."""


class ChildDied(Exception):  # noqa: N818 - reads as what happened
    """The process is gone, or says what makes no sense: it is no longer ours."""


class ChildHung(Exception):  # noqa: N818 - reads as what happened
    """The process did not end its work within its time, and was killed."""


class Child:
    """A process that runs a module of ours as a program, with one end of a pipe."""

    def __init__(self, module: str, *arguments: str) -> None:
        """Start it: it gets the pipe's number, then the arguments. Raises GuardError."""
        self._pipe, theirs = Pipe()
        home = str(Path(__file__).resolve().parents[2])
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        paths = [home, *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        command = [sys.executable, "-P", "-m", module]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - a module of ours, no shell
                [*command, str(theirs.fileno()), *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        self._await_start()

    def _await_start(self) -> None:
        try:
            with self.within(START_TIMEOUT_S):
                self.receive()
            return
        except ChildHung:
            why = f"said nothing for {START_TIMEOUT_S:g} s"
        except ChildDied:
            why = self.death()
        self.kill()
        raise GuardError(f"the process that decodes could not start: it {why}")

    @contextmanager
    def within(self, timeout_s: float) -> Iterator[None]:
        """Bound an exchange of messages; then the process is killed, and ChildHung raised."""
        # A timer that kills, not a poll of the pipe: recv_bytes of a message that trickles in, or
        # send_bytes to a child that reads nothing, blocks in the kernel until the child is gone.
        late = threading.Event()

        def end() -> None:
            late.set()  # first, so that the death that follows is known to be ours
            self._process.kill()

        timer = threading.Timer(timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except ChildDied as died:
            raise ChildHung if late.is_set() else died from None
        finally:
            timer.cancel()

    def send(self, data: bytes) -> None:
        """Send a message; raises ChildDied."""
        try:
            self._pipe.send_bytes(data)
        except OSError as error:
            raise ChildDied from error

    def receive(self, most_bytes: int = MESSAGE_BYTES) -> bytes:
        """Wait for a message; raises ChildDied, also if it is longer."""
        try:
            return self._pipe.recv_bytes(most_bytes)
        except (EOFError, OSError) as error:
            raise ChildDied from error

    def death(self) -> str:
        """Describe how the process ended."""
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"left with code {code}"

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()


class Watchdog:
    """Has one child at a time, which starts when it is asked for; a context manager."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = (module, *arguments)
        self._child: Child | None = None

    def __enter__(self) -> Self:
        """Return the watchdog itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self.end()

    def child(self) -> Child:
        """Return the child, a new one after `end`; raises GuardError."""
        self._child = self._child or Child(*self._command)
        return self._child

    def end(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.kill()
        self._child = None


def start_child_loop(pipe: Connection) -> int:
    """In the child: leave no core files, say that it runs, give the address space taken so far."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    pipe.send_bytes(b"ready")
    return int(pages) * resource.getpagesize()


@contextmanager
def bounded(address_space_bytes: int, alarm_s: float) -> Iterator[None]:
    """In the child: bound what is done; the kernel ends one that hangs after its parent is gone."""
    # the soft limit alone: the next picture may be allowed more
    resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_REAL, alarm_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
