"""The process that reports for a command: it runs the command's flow, whose work the command does.

Nothing here decides about the work. It ends with the command, at the latest some seconds after,
and takes its server along.
"""

import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.following.channel import Channel
from flows.following.server import call, keep_empty, own_server

START_S, ANSWER_S = 90.0, 10.0
DRAIN_S = 5.0  # while the command has ended already
LEAVE_S = 20.0  # after the command: to record how it ended, and no longer
PATIENCE_S = 5.0  # before the command is told that a server does not answer
OWN_PATIENCE_S = 20.0  # the same of our own, which has only been started
FLOWS = ("clean", "download", "judge", "pretrain", "finetune", "bootstrap")


def main() -> None:
    """Report for the command at the other end of standard input and output."""
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no message
    channel = Channel(sys.stdin.buffer, outgoing)
    threading.Thread(target=_leave_with, args=(channel,), daemon=True).start()
    try:
        with _server(channel) as answers:
            order = channel.take() if answers else None
            if order:
                _follow(channel, **order)
            channel.tell(ended=True)
    except Exception as error:
        channel.tell(trouble=f"Prefect failed: {error}")
    channel.flush(1.0)
    # Prefect would wait at its exit for a server that is gone, 20 s for each event
    os._exit(0)


def _leave_with(channel: Channel) -> None:
    """End this process some seconds after the command, whatever Prefect waits for."""
    channel.hung_up.wait()
    time.sleep(LEAVE_S)
    os._exit(1)


def _follow(channel: Channel, flow: str, parameters: dict[str, Any]) -> None:
    from flows.deployable.flow_run import doer
    from flows.following.followed import Followed

    if flow not in FLOWS:
        raise ValueError(f"no flow is named {flow!r}; expected one of {', '.join(FLOWS)}")
    called = getattr(importlib.import_module(f"flows.deployable.{flow}"), flow)
    doer.set(Followed(channel))
    called(**parameters, return_state=True)
    channel.tell(recorded=True)
    channel.flush(1.0)
    _drain()


def _drain() -> None:
    """Let the server hear what Prefect still has in its queues, in a bounded time."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=DRAIN_S)


@contextmanager
def _server(channel: Channel) -> Iterator[bool]:
    """Reach the server that is set, or one of our own; False if the command has gone meanwhile."""
    import prefect
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if address := PREFECT_API_URL.value():
        yield _answers(channel, address, PATIENCE_S)
        return
    with own_server(prefect.__version__) as server:
        from prefect.settings import PREFECT_API_AUTH_STRING

        address = server.settings["PREFECT_API_URL"]
        updates = {
            PREFECT_API_URL: address,
            PREFECT_API_AUTH_STRING: server.settings["PREFECT_API_AUTH_STRING"],
        }
        with temporary_settings(updates):
            answers = _answers(channel, address, OWN_PATIENCE_S)
            if answers:
                keep_empty(server.home)
            yield answers


def _answers(channel: Channel, address: str, patience_s: float) -> bool:
    """Wait until a server answers; False once it is too late, or the command is gone."""
    import httpx

    began, warned = time.monotonic(), False
    while not channel.hung_up.is_set():
        try:
            call(address, ANSWER_S)
        except httpx.HTTPError as error:
            waited = time.monotonic() - began
            if waited > patience_s and not warned:
                warned = True
                channel.tell(trouble=f"Prefect's server at {address} does not answer: {error}")
            if waited > START_S:
                return False
            time.sleep(0.2)
        else:
            return True
    return False


if __name__ == "__main__":
    main()
