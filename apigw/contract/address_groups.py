# Compiled: see docs/decisions/compiled.md
"""Groups of addresses that count as one client, where it is bounded what each may cost."""

from __future__ import annotations

from ipaddress import IPv6Address


def network(caller: bytes) -> str:
    """The address of a client, of IPv6 its /64, as everybody has one."""
    return _network(caller.decode("ascii"), 64)


def block(caller: bytes) -> str:
    """What an address may be one of many of that are easily had together: IPv4 a /24, IPv6 a /48."""
    text = caller.decode("ascii")
    return _network(text, 48) if text.count(":") >= 2 else text.rpartition(".")[0]


def _network(text: str, bits: int) -> str:
    if text.count(":") < 2:
        return text
    try:
        return str(int(IPv6Address(text)) >> (128 - bits))
    except ValueError:
        return text
