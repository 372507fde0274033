# Compiled: see docs/decisions/compiled.md
"""What one client is, as far as addresses tell."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

_FOUR: Final = AF_INET
_SIX: Final = AF_INET6
_packed: Final = inet_pton

MAPPED: Final = bytes(10) + b"\xff\xff"
"""How an IPv4 address begins that is mapped into IPv6 (RFC 4291 §2.5.5.2)."""


def packed_of(address: str) -> bytes | None:
    """The 4 or 16 bytes of an address, without its zone; ``None`` for what is no address.

    An IPv4 address mapped into IPv6 is the IPv4 address.
    """
    try:
        if ":" not in address:
            return _packed(_FOUR, address)
        packed = _packed(_SIX, address.partition("%")[0])
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(MAPPED) else packed


def client_of(address: str) -> bytes | None:
    """The same for all addresses that one client has at will; ``None`` for what is no address.

    Of IPv6 that is a /64 (RFC 6177 §2).
    """
    packed = packed_of(address)
    if packed is None:
        return None
    return b"4" + packed if len(packed) == 4 else b"6" + packed[:8]
