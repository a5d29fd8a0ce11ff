"""A limit on the time of a piece of work in the main thread; what hangs in a driver outlives it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(Exception):  # noqa: N818 - reads as what happened
    """A case that takes longer than it may."""


@contextmanager
def time_limit(limit_s: float) -> Iterator[None]:
    """Raise OutOfTime in the block after so many seconds."""

    def out_of_time(*_: object) -> None:
        raise OutOfTime(f"after {limit_s:.0f} s")

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
