"""A codec with faults: a JPEG whose comment names one crashes, hangs or eats memory when decoded.

Python imports this file at its start where its folder is on PYTHONPATH, so that it reaches every
process of a run: drivers, actors, and children that decode.
"""

import ctypes
import os
import resource
import signal
import time
from typing import NoReturn

from PIL import ImageFile

_load = ImageFile.ImageFile.load


def load(self: ImageFile.ImageFile) -> object:
    comment = self.info.get("comment", b"")
    if comment == b"poison: segfault":
        ctypes.string_at(0)
    elif comment == b"poison: hang":
        time.sleep(3600)
    elif comment == b"poison: freeze":
        ctypes.PyDLL(None).sleep(3600)  # as a codec that never lets go of the interpreter
    elif comment == b"poison: eat":
        _eat()
    return _load(self)


def _eat() -> NoReturn:
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        os.kill(
            os.getpid(), signal.SIGKILL
        )  # in the name of the kernel, before the machine is full
    eaten = []
    while True:
        eaten.append(bytes(64 << 20))  # never touched: quick to reach the limit on any machine


ImageFile.ImageFile.load = load  # type: ignore[method-assign]  # the poison itself
