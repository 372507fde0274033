# Compiled: see docs/decisions/compiled.md
"""What one client is, as far as addresses tell."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

MAPPED: Final = bytes(10) + b"\xff\xff"
"""How an IPv4 address begins that is mapped into IPv6 (RFC 4291 §2.5.5.2)."""


def client_of(address: str) -> bytes | None:
    """The same for all addresses that one client has at will; ``None`` for what is no address.

    Of IPv6 that is a /64 (RFC 6177 §2), without the zone; an IPv4 address mapped into it is the IPv4 address.
    """
    try:
        if ":" not in address:
            return b"4" + inet_pton(AF_INET, address)
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return None
    if packed.startswith(MAPPED):
        return b"4" + packed[12:]
    return b"6" + packed[:8]
