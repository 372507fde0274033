# Compiled: see docs/decisions/compiled.md
"""What counts as one client, where it is bounded what each may cost."""

from __future__ import annotations

from ipaddress import IPv6Address


def network(caller: bytes) -> str:
    """The address of a client, of IPv6 its /64, as everybody has one."""
    text = caller.decode("ascii")
    if text.count(":") < 2:
        return text
    try:
        return str(int(IPv6Address(text)) >> 64)
    except ValueError:
        return text
