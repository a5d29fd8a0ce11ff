"""The raylet of the driver's own machine: Ray ends a driver without one, soon and silently."""

import logging
import socket
import threading
from contextlib import suppress

from ray import _private as ray_private  # where its socket is has no public way

from flows.engines.ending import end_at_once
from flows.engines.engine import EngineError

_log = logging.getLogger(__name__)


class Home:
    """Watches this machine's raylet, from the connection to Ray on until it is closed.

    The head would say seconds later that it is lost; by then Ray may have ended this process.
    """

    def __init__(self) -> None:
        """Begin to watch; the socket is closed by the raylet's end alone."""
        self._lost, self._closed = threading.Event(), threading.Event()
        self._raylet = socket.socket(socket.AF_UNIX)
        path: str = ray_private.worker._global_node.raylet_socket_name
        with suppress(OSError):
            self._raylet.connect(path.removeprefix("unix:"))
        threading.Thread(target=self._watch, name="raylet", daemon=True).start()

    def check(self) -> None:
        """Raise EngineError where the raylet is dead."""
        if self._lost.is_set():
            raise EngineError(
                "Ray ends a driver whose raylet is dead. What is committed or saved is safe; start "
                "Ray here again if need be, then run the same command again"
            )

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()
        with suppress(OSError):
            self._raylet.shutdown(socket.SHUT_RDWR)
        self._raylet.close()

    def _watch(self) -> None:
        with suppress(OSError):
            self._raylet.recv(1)
        if not self._closed.is_set():
            # at once: whatever of Ray is asked next may end the process without another word
            _log.warning(
                "the raylet on this machine is dead, by a kill or for want of memory: this command "
                "ends"
            )
            end_at_once()
            self._lost.set()
