"""What happens in a run, told to whoever listens: ordinary records of Python's logging.

`getMessage()` of an event's record is a line for people, its `fields` are a dict of plain values
for machines. Events go to the logger `capfilt.run` alone, so that a terminal shows none of them;
warnings come from the loggers of our packages, as ever, and some have `fields`, too.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

EVENTS = logging.getLogger("capfilt.run")
EVENTS.setLevel(logging.INFO)
EVENTS.propagate = False
EVENTS.addHandler(logging.NullHandler())
PACKAGES = ("shards", "models", "pipeline", "flows")


def tell(event: str, line: str, level: int = logging.INFO, **fields: object) -> None:
    """Tell all listeners of an event."""
    EVENTS.log(level, line, extra=fields_of(event, **fields))


def tell_ready(worker: str, host: str, device: str, log: str = "", warm_up_s: float = 0.0) -> None:
    """Tell that a worker has loaded its models; `log` is where its machine has all it writes.

    `warm_up_s`: the seconds that compiling them took, 0 where nothing was compiled.
    """
    line, seconds = f"a worker on {host} ({device}) is ready", None
    if warm_up_s:
        line, seconds = f"{line}, warmed up in {warm_up_s:.0f} s", round(warm_up_s, 1)
    tell("worker_ready", line, worker=worker, host=host, device=device, log=log, warm_up_s=seconds)


def fields_of(event: str, **fields: object) -> dict[str, dict[str, object]]:
    """Make the `extra` of a record that tells of an event; what is None or "" is left out."""
    known = {name: value for name, value in fields.items() if value is not None and value != ""}
    return {"fields": {"event": event, **known}}


@contextmanager
def heard_by(handler: logging.Handler) -> Iterator[None]:
    """Let a handler hear all events, and our packages' warnings, as long as the block lasts."""
    packages = [logging.getLogger(name) for name in PACKAGES]
    for logger in packages:
        logger.addHandler(_TERMINAL)
    for logger in (EVENTS, *packages):
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in (EVENTS, *packages):
            logger.removeHandler(handler)


class _Terminal(logging.Handler):
    """Does what logging does where nobody handles a warning, which a handler of ours would end."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.lastResort is not None and not logging.getLogger().handlers:
            logging.lastResort.handle(record)


_TERMINAL = _Terminal(logging.WARNING)
