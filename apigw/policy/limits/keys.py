# Compiled: see docs/decisions/compiled.md
"""Whom a limit counts by."""

from __future__ import annotations

from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_pton

from apigw.contract.principal import bounded, key_of

_MAPPED = bytes(10) + b"\xff\xff"


def scope_key(scope: str, provider: str | None, principal: str | None, address: str) -> bytes:
    """What a limit of ``scope`` counts a caller by: at most 40 bytes, and never the same for two of them.

    ``user`` is the principal, ``provider`` being the verifier that vouches for the id; without one it is the address.
    IPv6 counts by /64, what one customer has at will; an IPv4 address mapped into it is the IPv4 address. What is no
    address, such as the peer of a unix socket, counts as it is written.
    """
    if scope == "endpoint":
        return b""
    if principal is not None and scope == "user":
        return key_of(provider or "", principal)
    return address_key(address)


@lru_cache(4096)
def address_key(address: str) -> bytes:
    try:
        if ":" not in address:
            return b"4" + inet_pton(AF_INET, address)
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return bounded(b"a", address.encode("utf-8", "surrogatepass"))
    if packed.startswith(_MAPPED):
        return b"4" + packed[12:]
    return b"6" + packed[:8]


def network_key(address: str) -> bytes | None:
    """For IPv6 its /48, which is what a site is given at most (RFC 6177 §2), and so 65,536 of what ``address_key``
    tells apart; ``None`` for what is no IPv6 address."""
    key = address_key(address)
    return key[:7] if key[:1] == b"6" else None
