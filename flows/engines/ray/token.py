"""The token by which this user's Ray processes know each other, readable for this user alone."""

import os
import secrets
from pathlib import Path
from tempfile import NamedTemporaryFile

TOKEN = Path(".ray") / "auth_token"  # below the home folder, where Ray looks
_SET_ELSEWHERE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def token_advice() -> str:
    """Say what to set where a cluster may have asked for a token that was not shown.

    It is not shown unasked: a driver that asks for tokens itself cannot be called by a cluster that
    has none, and Ray then cancels its actors.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return ""
    return (
        " If it asks for a token, as `ray start` does wherever ~/.ray/auth_token stands, set "
        "RAY_AUTH_MODE=token"
    )


def make_token() -> None:
    """Write a token where Ray would write one, which leaves it to the umask who may read it.

    A token that is there stays as it is, with its mode; nothing is written where the user has
    turned tokens off, or says by Ray's own variables where theirs stands.
    """
    path = Path.home() / TOKEN
    is_off = os.environ.get("RAY_AUTH_MODE", "token").lower() != "token"
    if is_off or path.exists() or any(name in os.environ for name in _SET_ELSEWHERE):
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent) as file:  # made with mode 0600
        file.write(secrets.token_hex(32))
        file.flush()
        try:
            os.link(file.name, path)
        except FileExistsError:
            return  # another session of this user was first
