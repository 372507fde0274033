# Compiled: see docs/decisions/compiled.md
"""The keys of rate limits: what a limit counts by."""

from __future__ import annotations

from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_pton

from apigw.contract.principal import bounded, key_of

_MAPPED = bytes(10) + b"\xff\xff"


def scope_key(scope: str, provider: str | None, principal: str | None, address: str) -> bytes:
    """The key of a caller for a limit of ``scope``: at most 40 bytes, and different for different callers.

    ``user`` counts by principal, which is the verifier ``provider`` and the id; without a principal by address. IPv6
    counts by /64, the smallest network that a customer usually has; an IPv4-mapped address counts as IPv4. A text that
    is not an address, such as the peer of a unix socket, counts as it is.
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
    """The /48 of an IPv6 address, the largest network that a site usually gets (RFC 6177 §2): 65,536 keys of
    ``address_key``. ``None`` for other addresses."""
    key = address_key(address)
    return key[:7] if key[:1] == b"6" else None
