"""Addresses as lists have them, mended as a browser would, or refused. Standard library only."""

import re
from urllib.parse import quote, urlsplit, urlunsplit

_SCHEME = re.compile(r"(https?)://", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST_SIGNS = re.compile(r"[\s<>\"\\^`{|}%]")
# What stays as it is: what addresses are made of, escapes among it.
_PATH_SIGNS = "/%:@!$&'()*+,;=~-._[]"
_QUERY_SIGNS = _PATH_SIGNS + "?"
_MOST_BYTES = 8_192


class BadAddress(ValueError):  # noqa: N818 - reads as what happened
    """No address of http or https, and why not."""


def mend(url: str) -> str:
    """Return an address that can be asked for: white space and letters of any alphabet escaped.

    A fragment goes, since no server is told of it. Raises BadAddress.
    """
    stripped = url.strip()
    if not _SCHEME.match(stripped):
        raise BadAddress("it does not begin with http:// or https://")
    if _CONTROL.search(stripped):
        raise BadAddress("it holds a control character")
    try:
        parts = urlsplit(stripped)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadAddress(str(error)) from None
    if not host:
        raise BadAddress("it names no host")
    try:
        netloc = _host(host) + (f":{port}" if port is not None else "")
        path = quote(parts.path or "/", safe=_PATH_SIGNS)
        query = quote(parts.query, safe=_QUERY_SIGNS)
    except UnicodeEncodeError:  # half of a surrogate pair
        raise BadAddress("it holds half a character") from None
    mended = urlunsplit((parts.scheme.lower(), netloc, path, query, ""))
    if len(mended) > _MOST_BYTES:
        raise BadAddress(f"it is longer than {_MOST_BYTES:,} bytes")
    return mended


def _host(host: str) -> str:
    """Write a host as it is looked up; a user's name and password are left out."""
    if _HOST_SIGNS.search(host):
        raise BadAddress("its host has a sign that no host has")
    if ":" in host:
        return f"[{host}]"
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError as error:
        raise BadAddress(f"its host is no name: {error}") from None
