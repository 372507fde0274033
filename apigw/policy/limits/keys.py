# Compiled: see docs/decisions/compiled.md
"""The keys of rate limits: what a limit counts by."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from apigw.contract.exchange import Exchange
from apigw.contract.principal import bounded, key_of
from apigw.policy.limits.quota import Quota
from apigw.wire.address import client_of

REMEMBERED: Final = 4096
"""Addresses of which the key is remembered: most callers come again."""


class Callers:
    """The keys of those who send exchanges."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def key(self, exchange: Exchange, limit: Quota) -> bytes:
        """The key by which ``limit`` counts an exchange. See ``scope_key`` and ``Dimensions.key``."""
        by = limit.by
        if by is not None:
            return by.key(exchange, self.address(exchange))
        scope = limit.scope
        if scope == "endpoint":
            return b""
        principal = exchange.principal
        if principal is not None and scope == "user":
            return principal.key
        return self.address(exchange)

    def address(self, exchange: Exchange) -> bytes:
        """The key of the address that it came from."""
        address = exchange.peers.client_address(exchange.request)
        key = self._known.get(address)
        if key is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[address] = key = address_key(address.decode("ascii"))
        return key


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
    return client_of(address) or bounded(b"a", address.encode("utf-8", "surrogatepass"))


def network_key(address: str) -> bytes | None:
    """The /48 of an IPv6 address, the largest network that a site usually gets (RFC 6177 §2): 65,536 keys of
    ``address_key``. ``None`` for other addresses."""
    key = address_key(address)
    return key[:7] if key[:1] == b"6" else None
