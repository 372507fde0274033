# Compiled: see docs/decisions/compiled.md
"""The client's address of a request, also behind trusted proxies."""

from __future__ import annotations

import re
from collections.abc import Iterable
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Final

from apigw.contract.ranges import Ranges
from apigw.wire.address import packed_of
from apigw.wire.request import Request

_COLON: Final = 0x3A
_REMEMBERED: Final = 4096
_MOST: Final = 64
"""Entries of ``X-Forwarded-For`` that are looked at: to look at thousands, for each request, takes milliseconds."""
_PORT: Final = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}").fullmatch


class Peers:
    """The trusted proxies: peers whose ``X-Forwarded-For`` is believed. Caches up to 4096 decisions."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        """``trusted`` are networks, and ``unix:`` for every peer of a unix socket."""
        trusted = set(trusted)
        self._ranges = Ranges(trusted)
        self.some = bool(trusted)
        """Whether any peer is trusted at all."""
        self._decided: dict[bytes, bool] = {}

    def trusts(self, peer: bytes) -> bool:
        """Whether ``peer``, an address in text or ``UNIX_PEER``, is a trusted proxy."""
        if not self.some:
            return False
        decided = self._decided.get(peer)
        if decided is None:
            decided = self._ranges.holds(peer)
            if len(self._decided) >= _REMEMBERED:
                self._decided.clear()
            self._decided[peer] = decided
        return decided

    def client_address(self, request: Request) -> bytes:
        """The address of the peer; behind trusted proxies, the last in ``X-Forwarded-For`` that is not one of them.

        If all are trusted it is the first one. An entry that is not an address ends the search, and the address found
        before counts.
        """
        peer = request.stream.peer
        if not self.trusts(peer):
            return peer
        address = peer
        for entry in reversed(_claimed(request)):
            found = claimed_address(entry)
            if found is None:
                break
            address = found
            if not self.trusts(address):
                break
        return address

    def is_certain(self, address: bytes, request: Request) -> bool:
        """Whether ``address``, which ``client_address`` has found, is surely the client's.

        It is not if it is a trusted proxy's, and the client is named by something that is no address.
        """
        if not self.trusts(address):
            return True
        return all(claimed_address(entry) is not None for entry in _claimed(request))


def _claimed(request: Request) -> list[bytes]:
    """The entries of ``X-Forwarded-For``: the last ``_MOST``, and what is before them as one, which is no address if it
    is several."""
    fields = [value for name, value in request.headers if name == b"x-forwarded-for"]
    return b",".join(fields).rsplit(b",", _MOST) if fields else []


FORWARDED: Final = frozenset(
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
        if any(claimed_address(entry) is None for entry in _claimed(request)):
            return False
    return allowed.trusts(proxies.client_address(request))


def claimed_address(entry: bytes) -> bytes | None:
    """The address in an entry of ``X-Forwarded-For``, as it is usually written; ``None`` if there is none.

    Some proxies add a port, or brackets. No zone: it means something on the machine of the proxy only. An IPv4 address
    mapped into IPv6 is the IPv4 address.
    """
    entry = entry.strip(b" \t")
    if _COLON in entry:
        with_port = _PORT(entry)
        if with_port is not None:
            entry = with_port[1] or with_port[2]
    text = entry.decode("latin-1")
    packed = None if "%" in text else packed_of(text)
    if packed is None:
        return None
    if ":" not in text:
        return entry  # no address of IPv4 can be written in two ways
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed).encode("ascii")
