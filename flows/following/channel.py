"""Messages between a command and the process that reports for it: JSON, one a line.

Neither side ever waits for the other: what cannot be written is dropped, and what comes is taken
from the pipe at once, by a thread.
"""

import json
import queue
import threading
from collections.abc import Mapping
from typing import IO, Any

Message = Mapping[str, Any]
MOST_WAITING = 1_000  # messages that the other side has not yet taken

_HUNG_UP: Message = {}


class Channel:
    """The two pipes between a command and its reporter, seen from one of them."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._came: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._going: queue.Queue[Message] = queue.Queue(MOST_WAITING)
        self._incoming, self._outgoing = incoming, outgoing
        self.hung_up = threading.Event()  # the other side is gone, or about to go
        for work in (self._read, self._write):
            threading.Thread(target=work, name="reporter", daemon=True).start()

    def tell(self, **message: Any) -> None:  # noqa: ANN401 - JSON
        """Send a message, sooner or later; it is lost where nobody takes what was sent before."""
        try:
            self._going.put_nowait(message)
        except queue.Full:
            return

    def take(self, timeout_s: float | None = None) -> Message | None:
        """Return the next message, or None if none comes in time; an empty one: they hung up."""
        try:
            message = self._came.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if not message:
            self._came.put(message)  # for whoever asks next
        return message

    def flush(self, timeout_s: float) -> None:
        """Wait until what was told is written, at most so long."""
        written = threading.Event()
        self.tell(flushed=written)
        written.wait(timeout_s)

    def _read(self) -> None:
        try:
            for line in self._incoming:
                message = json.loads(line)
                if "stopped" in message or "failed" in message:
                    self.hung_up.set()
                self._came.put(message)
        except (OSError, ValueError):
            pass  # half a line, of somebody who was killed
        self.hung_up.set()
        self._came.put(_HUNG_UP)

    def _write(self) -> None:
        while True:
            message = self._going.get()
            if isinstance(written := message.get("flushed"), threading.Event):
                written.set()
                continue
            try:
                self._outgoing.write(json.dumps(message).encode() + b"\n")
                self._outgoing.flush()
            except (OSError, ValueError):
                return
