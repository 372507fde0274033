# Compiled: see docs/decisions/compiled.md
"""The key of an exchange for ``balance: hash``: exchanges with equal keys go to one target, as far as its load allows.

Where an exchange has no such key, as without the header, it is the address of its client: so it goes to one target,
too, and no key of its own makes a target hot.
"""

from __future__ import annotations

from typing import Final, final

from apigw.contract.exchange import Exchange
from apigw.wire.headers import first

LONGEST: Final = 4096
"""Bytes of a key that are looked at: a hash of more would take longer than the rest of the request."""


def key_of(by: str, name: str) -> KeyOf:
    """``by``: ``client``, ``principal``, or the ``header`` or ``cookie`` with this ``name``."""
    if by == "header":
        return KeyOfHeader(name.lower().encode("ascii"))
    if by == "cookie":
        return KeyOfCookie(name.encode("ascii"))
    return KeyOfPrincipal() if by == "principal" else KeyOf()


class KeyOf:
    """``{hash: client}``: the client's address, behind trusted proxies."""

    def of(self, exchange: Exchange) -> bytes:
        """At most ``LONGEST`` bytes, and one of the kind."""
        return b"a" + exchange.peers.client_address(exchange.request)


@final
class KeyOfPrincipal(KeyOf):
    """``{hash: principal}``: the authenticated caller."""

    def of(self, exchange: Exchange) -> bytes:
        principal = exchange.principal
        return super().of(exchange) if principal is None else b"p" + principal.key


@final
class KeyOfHeader(KeyOf):
    """``{hash: {header: X}}``: the first field of that name, unless it is empty."""

    def __init__(self, name: bytes) -> None:
        """``name`` in lower case."""
        self._name = name

    def of(self, exchange: Exchange) -> bytes:
        value = first(exchange.headers, self._name)
        return b"v" + value[:LONGEST] if value else super().of(exchange)


@final
class KeyOfCookie(KeyOf):
    """``{hash: {cookie: X}}``: the first cookie of that name (RFC 6265 §5.4), unless it is empty."""

    def __init__(self, name: bytes) -> None:
        self._begins = name + b"="

    def of(self, exchange: Exchange) -> bytes:
        begins = self._begins
        for name, value in exchange.request.headers:
            if name == b"cookie":
                for pair in value.split(b";"):
                    pair = pair.strip(b" \t")
                    if pair.startswith(begins) and len(pair) > len(begins):
                        return b"v" + pair[len(begins) :][:LONGEST]
        return super().of(exchange)
