"""The token by which this user's Ray processes know each other, readable for this user alone."""

import os
import secrets
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from ray import _raylet

TOKEN = Path(".ray") / "auth_token"  # below the home folder, where Ray looks
_SET_ELSEWHERE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def show_token() -> None:
    """Show this user's token, where there is one, to a cluster that is joined.

    `ray start` asks for it wherever it finds one; a cluster that asks for none takes no notice. The
    user's own RAY_AUTH_MODE decides.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    raylet: Any = _raylet  # compiled: it has no types
    if raylet.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        os.environ["RAY_AUTH_MODE"] = "token"
        raylet.Config.initialize("")  # so that this process sees it, too


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
