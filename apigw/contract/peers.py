# Compiled: see docs/decisions/compiled.md
"""Whose request it is: the client's address, behind proxies that are trusted."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from apigw.wire.request import Request

_REMEMBERED = 4096


class Peers:
    """Which peers are proxies whose word on the client's address is taken. Decisions are remembered, up to a bound."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks = [ip_network(network, strict=False) for network in trusted]
        self.some = bool(self._networks)
        """Whether any peer is trusted at all."""
        self._decided: dict[bytes, bool] = {}

    def trusts(self, peer: bytes) -> bool:
        if not self._networks:
            return False
        decided = self._decided.get(peer)
        if decided is None:
            address = parse_address(peer)
            decided = address is not None and any(address in network for network in self._networks)
            if len(self._decided) >= _REMEMBERED:
                self._decided.clear()
            self._decided[peer] = decided
        return decided

    def client_address(self, request: Request) -> bytes:
        """Whose request this is: the peer, or behind trusted proxies the first from the right that is not one."""
        peer = request.stream.peer
        if not self.trusts(peer):
            return peer
        address = peer
        claimed = b",".join(value for name, value in request.headers if name == b"x-forwarded-for")
        for entry in reversed(claimed.split(b",")):
            parsed = parse_address(entry.strip())
            if parsed is None:
                break
            address = str(parsed).encode("ascii")
            if not self.trusts(address):
                break
        return address


FORWARDED = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)
"""What a proxy adds to a request, and a client that asks by itself does not."""


def came_from(allowed: Peers, proxies: Peers, request: Request) -> bool:
    """Whether a request comes from one of ``allowed``, as far as that is certain.

    Behind ``proxies`` it is the client that counts. What shows that it came through a proxy, but not for whom, or
    through one that is not among them, could be from anybody.
    """
    fields = {name for name, _ in request.headers}
    if not fields.isdisjoint(FORWARDED):
        if b"x-forwarded-for" not in fields or not proxies.trusts(request.stream.peer):
            return False
        claimed = b",".join(value for name, value in request.headers if name == b"x-forwarded-for")
        if any(parse_address(entry.strip()) is None for entry in claimed.split(b",")):
            return False
    return allowed.trusts(proxies.client_address(request))


def parse_address(text: bytes) -> IPv4Address | IPv6Address | None:
    """An address as it stands in ``X-Forwarded-For``; one that is IPv4 written as IPv6 becomes IPv4."""
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
