"""Which Ray a command works on: one of its own on this machine, or a cluster."""

import logging
import os

from shards.errors import UsageError

_log = logging.getLogger(__name__)
_said = set[str]()


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
    """Refuse a relative output inside a job of Ray, whose folder is a copy that vanishes."""
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    if in_job and "://" not in output and not os.path.isabs(output):  # noqa: PTH117 - as written
        raise UsageError(
            f"output {output} is relative, and a submitted Ray job works in a copy of its folder "
            "that vanishes with it. Give an absolute path on a disk that all machines share, or "
            "a URL (s3://…)"
        )
