# Compiled: see docs/decisions/compiled.md
"""Groups of addresses that count as one client, where it is bounded what each may cost."""

from __future__ import annotations

from apigw.wire.address import client_of


def network(caller: bytes) -> str:
    """The same for all addresses of one client (``wire.address.client_of``): of IPv6 a /64, as everybody has one."""
    return _client(caller).decode("latin-1")


def block(caller: bytes) -> str:
    """What an address may be one of many of that are easily had together: IPv4 a /24, IPv6 a /48."""
    client = _client(caller)
    if client.startswith(b"4"):
        client = client[:4]
    elif client.startswith(b"6"):
        client = client[:7]
    return client.decode("latin-1")


def _client(caller: bytes) -> bytes:
    """``caller`` itself, such as ``unix:``, if it is no address."""
    return client_of(caller.decode("ascii")) or caller
