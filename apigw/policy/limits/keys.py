# Compiled: see docs/decisions/compiled.md
"""Whom a limit counts by."""

from __future__ import annotations

from functools import lru_cache

from apigw.contract.principal import bounded, key_of
from apigw.wire.address import client_of


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
    return client_of(address) or bounded(b"a", address.encode("utf-8", "surrogatepass"))
