"""Ctrl-C while the command's own modules are loaded: one line and its exit code, no traceback.

It is caught as soon as this module is imported, which is to be the first, until `over`.
"""

import os
import signal
import threading
from types import FrameType


def over() -> None:
    """Let Ctrl-C be an exception again, which commands clean up after."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, b"capfilt: stopped by Ctrl-C\n")
    os._exit(128 + signal.SIGINT)  # nothing is begun that would have to be ended


_is_free = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nohup ignores it
if _is_free and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, _stop)
