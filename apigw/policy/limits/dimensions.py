# Compiled: see docs/decisions/compiled.md
"""What a limit counts by, where it is more than the caller or the address: values of headers and claims, and several
of these in one key."""

from __future__ import annotations

import json
from collections.abc import Sequence

from apigw.contract.exchange import Exchange
from apigw.contract.principal import Principal, bounded, reach
from apigw.policy.limits.model import SHORT, Dimension, RateLimit, dimension_in_words


class Dimensions:
    """The parts of a key, in an order of their own, so that the one in which they are written is no matter."""

    def __init__(self, by: Sequence[Dimension]) -> None:
        self.parts: tuple[Part, ...] = tuple([_part(each) for each in sorted(by, key=dimension_in_words)])

    def key(self, exchange: Exchange, address: bytes) -> bytes:
        """The key of an exchange: at most 32 bytes. ``address`` is that of its address, which stands for what it does
        not have."""
        parts = self.parts
        if len(parts) == 1:
            return parts[0].of(exchange) or address
        found: list[bytes] = []
        for part in parts:
            value = part.of(exchange) or address
            found.append(b"%d:" % len(value))
            found.append(value)
        return bounded(b"m", b"".join(found))


class Part:
    """One dimension."""

    def of(self, exchange: Exchange) -> bytes:
        """What it is for an exchange, as a key of at most 40 bytes that no other kind of part has; empty if there is
        none."""
        raise NotImplementedError


class OfAddress(Part):
    def of(self, exchange: Exchange) -> bytes:
        return b""


class OfPrincipal(Part):
    def of(self, exchange: Exchange) -> bytes:
        principal = exchange.principal
        return b"" if principal is None else principal.key


class OfHeader(Part):
    """All fields of that name, as one list (RFC 9110 §5.3). ``name`` is in lower case."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def of(self, exchange: Exchange) -> bytes:
        wanted, found = self._name, b""
        for name, value in exchange.headers:
            if name == wanted and value:
                found = found + b", " + value if found else value
        return bounded(b"h", found) if found else b""


class OfClaim(Part):
    """The provider is part of it: what one calls ``acme`` is not what another does. Text begins with an
    ``s``, and all else is JSON, which does not."""

    def __init__(self, name: str) -> None:
        self._name = name

    def of(self, exchange: Exchange) -> bytes:
        principal = exchange.principal
        return b"" if principal is None else _claim(principal, self._name)


def _claim(principal: Principal, name: str) -> bytes:
    value = reach(principal.claims, name)
    if value is None:
        return b""
    provider = principal.provider.encode("utf-8", "surrogatepass")
    if isinstance(value, str):  # nearly always
        text = b"s" + value.encode("utf-8", "surrogatepass")
    else:
        text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")
    return bounded(b"c", b"%d:%b%b" % (len(provider), provider, text))


def _part(dimension: Dimension) -> Part:
    if dimension == "principal":
        return OfPrincipal()
    if dimension == "address":
        return OfAddress()
    assert not isinstance(dimension, str)
    if dimension.header is not None:
        return OfHeader(dimension.header.lower().encode("ascii"))
    assert dimension.claim is not None
    return OfClaim(dimension.claim)


def dimensions(config: RateLimit) -> Dimensions | None:
    """``None`` where the limit counts as one of ``SHORT`` does, which takes no look at what is here."""
    return None if config.scope is not None or config.by in SHORT.values() else Dimensions(config.by)
