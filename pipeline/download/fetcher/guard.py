"""Connections of this process lead to public addresses only, whoever opens them.

What is checked is the number that is connected to, so that no name, no redirect and no second look
at a name leads elsewhere.
"""

import ipaddress
import socket
from typing import Any

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last four bytes are an IPv4 address


class BlockedAddress(OSError):  # noqa: N818 - reads as what happened
    """An address that is not public: of this machine, its network, or nobody's."""


def is_public(host: str) -> bool:
    """Check a numeric address; one that stands for an IPv4 address is that one."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False  # a name: it would be looked up behind our back
    inner = _inner_ipv4(address)
    if inner is not None:
        address = inner
    no_host = address.is_multicast or address.is_reserved or address.is_unspecified
    site = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not no_host and not site


def _inner_ipv4(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def install() -> None:
    """Let no socket of this process connect to what is not public, from now on."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded(self: socket.socket, address: Any) -> None:  # noqa: ANN401 - of any family
        _check(self, address)
        connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:  # noqa: ANN401 - of any family
        _check(self, address)
        return connect_ex(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign, assignment]
    socket.socket.connect_ex = guarded_ex  # type: ignore[method-assign, assignment]


def _check(connecting: socket.socket, address: Any) -> None:  # noqa: ANN401 - of any family
    if connecting.family == socket.AF_UNIX:
        return
    if not is_public(str(address[0])):
        raise BlockedAddress(f"{address[0]} is not a public address")
