"""A connection to Ray: on this machine alone, or to a cluster."""

import io
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stdout
from typing import Any

import ray

from flows.engines.address import check_reachable
from flows.engines.engine import EngineError
from flows.engines.ray.token import make_token, token_advice
from shards.files.scratch import scratch_folder

_log = logging.getLogger(__name__)
_joined: dict[str, str] = {}  # `auto` may be another cluster when a command joins once more

OBJECT_STORE_BYTES = 80_000_000  # close to Ray's least: no data passes through it


@contextmanager
def ray_session(address: str | None) -> Iterator[threading.Event]:
    """Start Ray on this machine, with its token authentication, or join a cluster.

    The event is set once the process is told to end (SIGTERM), if this is its main thread.
    """
    if address is not None:
        address = _joined.get(address, address)
        check_reachable(address)
    told_to_end = threading.Event()
    options: dict[str, Any] = {"address": address or "local"}
    if address is None:
        make_token()
        options |= {
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    with ExitStack() as leaving:
        # Ray's threads print to standard output, which is the result's alone: whole logs of a
        # raylet that died. What matters of it we say ourselves, and Ray's own files hold all.
        leaving.enter_context(redirect_stdout(_ToLog()))
        # Workers put the driver's folder first on their path, where a user's own models/ would win,
        # so Ray starts in an empty one. It must outlive the workers, who stay there: a process in
        # a folder that is gone cannot load MKL.
        empty = scratch_folder("ray")
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread:
            leaving.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        with chdir(leaving.enter_context(empty)):
            _start(options)
        if address is not None:
            _joined[address] = ray.get_runtime_context().gcs_address
        leaving.callback(ray.shutdown)
        if in_main_thread:
            # Not Ray's handler, which aborts, nor one that raises: inside Ray's native code an
            # exception ends as a SystemError.
            signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
        yield told_to_end


def _start(options: dict[str, Any]) -> None:
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except Exception as error:  # Ray raises Exception itself, where a machine is too slow for it
        first = (str(error).strip().splitlines() or [repr(error)])[0].rstrip(".")
        raise EngineError(
            f"Ray did not start, or was not joined, at {options['address']}: {first}. What is "
            "committed is safe; run the same command again, or with --engine local."
            + token_advice()
        ) from error


class _ToLog(io.TextIOBase):
    """Takes what Ray prints into the log, where it is seen only by those who ask for it."""

    def write(self, text: str) -> int:
        """Log a piece of text."""
        if text.strip():
            _log.info("Ray says: %s", text.rstrip())
        return len(text)
