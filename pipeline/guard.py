"""Decode under guard: in a child process, whose crash, hang or greed costs one picture.

Run as a program this file is that child. Pictures go to it, and pixels come back, as plain bytes:
a child that a hostile file has taken over cannot make its parent run anything.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

from pipeline.decode import Decoded, Limits, Refusal, decode
from shards.schema import SampleReason

TIMEOUT_S = 60.0
START_TIMEOUT_S = 60.0
TRIES = 2  # a child may be killed for what is not the picture's fault

# What one pixel may take while its picture is turned into RGB, and all the rest.
BYTES_PER_PIXEL = 16
MEMORY_BYTES = 1 << 30
_MESSAGE_BYTES = 64 * 1024

# What a child needs of our environment; it gets no one's credentials.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "LANG", "SYSTEMROOT")


class GuardError(RuntimeError):
    """A child that cannot even start: the machine's fault, not a picture's."""


class Guard:
    """Decodes in a child process, one picture at a time; a context manager."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        """Give the guard itself; the child starts with the first picture."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child."""
        self._end()

    def decode(self, data: bytes, limits: Limits) -> Decoded | Refusal:
        """Decode one image as `pipeline.decode.decode` does, or say how it ended the child.

        Raises GuardError.
        """
        for _ in range(TRIES):
            child = self._child = self._child or _Child(self._timeout_s)
            try:
                return child.decode(data, limits)
            except TimeoutError:
                what = f"no picture within {self._timeout_s:g} s"
                refusal = Refusal(SampleReason.DECODE_TIMEOUT, what)
            except MemoryError:
                megabytes = memory_limit(limits) >> 20
                refusal = Refusal(SampleReason.DECODER_CRASH, f"needs more than {megabytes} MiB")
            except (EOFError, OSError):
                refusal = Refusal(SampleReason.DECODER_CRASH, f"the decoder {child.death()}")
            self._end()
        return refusal

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
        self._child = None


class _Child:
    """A process that decodes what it is sent."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._pipe, theirs = Pipe()
        home = str(Path(__file__).resolve().parents[1])
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        found = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{home}{os.pathsep}{found}" if found else home
        command = [sys.executable, "-P", "-m", "pipeline.guard"]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(timeout_s)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        self._await_start()

    def _await_start(self) -> None:
        try:
            if self._pipe.poll(START_TIMEOUT_S):
                self._pipe.recv_bytes(_MESSAGE_BYTES)
                return
            why = f"said nothing for {START_TIMEOUT_S:g} s"
        except (EOFError, OSError):
            why = self.death()
        self.kill()
        raise GuardError(f"the process that decodes pictures could not start: it {why}")

    def decode(self, data: bytes, limits: Limits) -> Decoded | Refusal:
        """Let the child decode; raises TimeoutError, MemoryError, or EOFError/OSError if it dies.

        An answer that makes no sense comes from a process that is no longer ours: a death too.
        """
        deadline = time.monotonic() + self._timeout_s
        self._pipe.send_bytes(json.dumps(asdict(limits)).encode())
        self._pipe.send_bytes(data)
        try:
            answer = json.loads(self._receive(deadline, _MESSAGE_BYTES))
            if not answer:
                raise MemoryError
            if "reason" in answer:
                return Refusal(SampleReason(answer["reason"]), str(answer["detail"]))
            pixels = self._receive(deadline, 3 * limits.max_pixels)
            return _picture(answer, pixels)
        except (ValueError, TypeError, KeyError) as error:
            raise EOFError from error

    def _receive(self, deadline: float, most_bytes: int) -> bytes:
        if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        return self._pipe.recv_bytes(most_bytes)

    def death(self) -> str:
        """Say how the process ended."""
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


def _picture(answer: dict[str, Any], pixels: bytes) -> Decoded:
    width, height = int(answer["width"]), int(answer["height"])
    if len(pixels) != 3 * width * height:
        raise ValueError(f"{len(pixels)} bytes are no picture of {width} x {height}")
    image = Image.frombytes("RGB", (width, height), pixels)
    return Decoded(image, str(answer["format"]), tuple(map(str, answer["notes"])))


def memory_limit(limits: Limits) -> int:
    """Give the bytes that decoding one picture may take."""
    return MEMORY_BYTES + BYTES_PER_PIXEL * limits.max_pixels


def _serve(pipe: Connection, timeout_s: float) -> None:
    """Decode what comes until the parent hangs up."""
    own_bytes = _address_space()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send_bytes(b"ready")
    while True:
        limits = Limits(**json.loads(pipe.recv_bytes(_MESSAGE_BYTES)))
        data = pipe.recv_bytes()
        most = own_bytes + len(data) + memory_limit(limits)
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        # The kernel ends a child that hangs after its parent is gone.
        signal.setitimer(signal.ITIMER_REAL, 2 * timeout_s)
        try:
            found = decode(data, limits)
        except MemoryError:
            pipe.send_bytes(b"{}")
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send_bytes(json.dumps(_message(found)).encode())
        if isinstance(found, Decoded):
            pipe.send_bytes(found.image.tobytes())


def _message(found: Decoded | Refusal) -> dict[str, Any]:
    if isinstance(found, Refusal):
        return {"reason": found.reason, "detail": found.detail}
    width, height = found.image.size
    return {"width": width, "height": height, "format": found.format, "notes": found.notes}


def _address_space() -> int:
    """Give the bytes of address space taken already, most of them by libraries."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


if __name__ == "__main__":
    try:
        _serve(Connection(int(sys.argv[1])), float(sys.argv[2]))
    except (EOFError, OSError):
        sys.exit(0)  # the parent hung up
