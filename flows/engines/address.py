"""Whether a command works on Ray, and on which: one of its own on this machine, or a cluster."""

import logging
import os
from typing import Literal

from flows.extras import is_installed
from shards.errors import UsageError

_log = logging.getLogger(__name__)
_said = set[str]()


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
