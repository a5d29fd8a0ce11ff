"""How a command's process ends: at once, where the interpreter's own end would abort it."""

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn

_at_once = threading.Event()


def end_at_once() -> None:
    """Note that threads of this process are caught in native code, and will not come back."""
    _at_once.set()


def settle(code: int) -> None:
    """Let signals end the process at once, by this code: it is known, and all is released.

    The interpreter's own end takes seconds behind torch, and a signal there would be an exception
    that nobody catches, or end the process by itself.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # who reads it may be gone
            stream.flush()
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: os._exit(code))


def leave(code: int, at_once: bool = False) -> NoReturn:
    """End the process with an exit code; at once, it waits for nothing and nobody.

    What the command holds must be released before: a thread that is in native code while the
    interpreter ends aborts it.
    """
    if not (at_once or _at_once.is_set()):
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
