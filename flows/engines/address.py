"""Whether a command works on Ray, and on which: one of its own on this machine, or a cluster."""

import logging
import os
import socket
from typing import Literal

from flows.extras import is_installed
from shards.errors import UsageError

_log = logging.getLogger(__name__)
_said = set[str]()

ANSWER_S = 5.0  # that a head has to take a connection, and as long to say a word
_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # an empty frame: length, type, flags, stream


def resolve_kind(
    kind: Literal["auto", "ray", "local"], address: str | None, several: bool = False
) -> Literal["ray", "local"]:
    """Choose where `auto` works: on Ray, or, where it is not installed, in this process; said once.

    What needs Ray, a cluster's address or several workers, is never done without: it is asked for,
    and the import says what to install.
    """
    if kind != "auto":
        return kind
    if several or address or os.environ.get("RAY_ADDRESS") or is_installed("ray"):
        return "ray"
    if "local" not in _said:
        _said.add("local")
        _log.warning("Ray is not installed: working in this process (pip install 'capfilt[ray]')")
    return "local"


def join_address(address: str | None) -> str | None:
    """Return the address of the cluster to join: that of the recipe, or what RAY_ADDRESS says.

    None is a Ray of our own on this machine.
    """
    if address is not None or not (named := os.environ.get("RAY_ADDRESS")):
        return address
    if named not in _said:
        _said.add(named)
        _log.warning("joining the Ray cluster at %s (RAY_ADDRESS)", named)
    return named


def check_reachable(address: str) -> None:
    """Refuse an address where no head listens: Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return  # Ray itself looks for it
    if address.startswith("ray://"):
        raise UsageError(
            f"{address} is for Ray's client, which shows a driver no machines; give the head's own "
            "address: HOST:6379, as `ray start --head` says"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"{address!r} is no address of a Ray cluster; expected HOST:PORT, or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_S) as connection:
            why = "" if _speaks_grpc(connection) else "what listens there is something else"
    except TimeoutError:
        why = f"no answer in {ANSWER_S:g} s"
    except UnicodeError:  # of names that the domain name system cannot have
        why = "that is no name of a machine"
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise UsageError(
            f"no Ray cluster answers at {address} ({why}). Start one there (ray start --head), or "
            "give the address that it says: HOST:6379, not the port of its page"
        )


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether a server answers as a head's does: a SETTINGS frame begins HTTP/2 (RFC 9113, 3.4)."""
    if os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true"):
        return True  # Ray itself looks, with its certificates
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS)
    frame = b""
    while len(frame) < len(_SETTINGS) and (more := connection.recv(len(_SETTINGS) - len(frame))):
        frame += more  # each piece within the connection's time
    return frame[3:4] == _SETTINGS[3:4] and frame[5:] == _SETTINGS[5:]


def check_output(output: str) -> None:
    """Refuse a file, and in a job of Ray a relative path: its folder is a copy that vanishes."""
    if "://" not in output and os.path.isfile(output):  # noqa: PTH113 - as written
        raise UsageError(f"output {output} is a file, expected a folder; give another output")
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    if in_job and "://" not in output and not os.path.isabs(output):  # noqa: PTH117 - as written
        raise UsageError(
            f"output {output} is relative, and a submitted Ray job works in a copy of its folder "
            "that vanishes with it. Give an absolute path on a disk that all machines share, or "
            "a URL (s3://…)"
        )
