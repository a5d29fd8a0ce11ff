"""Ctrl-C and SIGTERM while the command's own modules are loaded: one line, and the exit code.

It is caught as soon as this module is imported, which is to be the first, until `over`.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

_USUAL: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
_NAMES = {signal.SIGINT: b"Ctrl-C", signal.SIGTERM: b"SIGTERM"}


def over() -> None:
    """Let Ctrl-C be an exception again, which commands clean up after."""
    for number, usual in _USUAL.items():
        if signal.getsignal(number) is _stop:
            signal.signal(number, usual)


def _stop(number: int, _frame: FrameType | None) -> None:
    os.write(2, b"capfilt: stopped by " + _NAMES[signal.Signals(number)] + b"\n")
    os._exit(128 + number)  # nothing is begun that would have to be ended


if threading.current_thread() is threading.main_thread():
    for _number, _usual in _USUAL.items():
        if signal.getsignal(_number) is _usual:  # nohup ignores some
            signal.signal(_number, _stop)
