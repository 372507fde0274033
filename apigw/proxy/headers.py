# Compiled: see docs/decisions/compiled.md
"""Every rule about header fields that cross the gateway, in the order in which they make a request safe.

What a client sends is copied unless something here takes it out: fields of its connection, identity, and, from a peer
that is not a trusted proxy, what claims to know where the request came from. Only then are the gateway's own set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from os import urandom
from typing import Any, Final, cast

from apigw.wire.headers import HOP_BY_HOP, Header, Headers, first
from apigw.wire.request import Request

IDENTITY = frozenset({b"x-user-id", b"x-user-roles", b"x-auth-provider"})
FORWARDED = frozenset({b"forwarded", b"x-real-ip"})
WRITTEN_HERE = frozenset({b"host", b"content-length", b"expect", b"x-request-id"})
"""Fields of a request that are written anew from what was parsed."""
DROPPED = frozenset({b"x-request-id"})
"""Fields of a response that are written anew."""

_VIA_HEADER = (b"via", b"1.1 apigw")
_VIA: Final[dict[bytes, Any]] = {
    b"HTTP/1.0": (b"via", b"1.0 apigw"),
    b"HTTP/1.1": (b"via", b"1.1 apigw"),
    b"HTTP/2": (b"via", b"2 apigw"),
}
_HTTP: Final[Any] = (b"x-forwarded-proto", b"http")
_HTTPS: Final[Any] = (b"x-forwarded-proto", b"https")
_WELL_FORMED_ID = re.compile(rb"[\x21-\x7e]{1,128}").fullmatch
_REMEMBERED = 4096
_LONGEST = 64
"""Of the names that are remembered, so that they hold 3 MiB at most. Those that are sent all the time are shorter."""
_FOLDED = bytes(byte if bytes((byte,)).isalnum() else ord("-") for byte in range(256))
"""Makes a dash of every byte that is no letter and no digit."""
_CONTINUED = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"})


class _Identifiers:
    """Random ids of 32 hexadecimal digits, made many at once: so each costs a sixth."""

    def __init__(self) -> None:
        self._digits = b""
        self._at = 0

    def next(self) -> bytes:
        at = self._at
        if at == len(self._digits):
            self._digits = urandom(2048).hex().encode("ascii")
            at = 0
        self._at = end = at + 32
        return self._digits[at:end]


_identifiers = _Identifiers()


def new_request_id() -> bytes:
    return _identifiers.next()


def request_id(headers: Headers) -> bytes:
    """The client's ``X-Request-ID`` where it sent one that can be logged as it is, else a new one."""
    found = None
    for name, value in headers:
        if name == b"x-request-id":
            if found is not None:
                return new_request_id()
            found = value
    if found is not None and _WELL_FORMED_ID(found):
        return found
    return new_request_id()


class _Kept(dict[bytes, bool]):
    """Whether a field of a request is copied, by its name: each name is judged once and remembered, up to a bound."""

    def __init__(self, trusted: bool, drop_token: bool) -> None:
        super().__init__()
        self._trusted = trusted
        self._drop_token = drop_token

    def __missing__(self, name: bytes) -> bool:
        kept = self._judge(name)
        if len(name) <= _LONGEST and len(self) < _REMEMBERED:
            self[name] = kept
        return kept

    def _judge(self, name: bytes) -> bool:
        # CGI cannot tell ``X_User_ID``, and some servers' CGI ``X+User~ID``, from ``X-User-ID`` (RFC 3875 §4.1.18).
        plain = name.translate(_FOLDED)
        if plain in HOP_BY_HOP or plain in WRITTEN_HERE or plain in IDENTITY:
            return False
        if plain in FORWARDED or plain.startswith(b"x-forwarded-"):
            # What a trusted proxy says it says in so many words; three of them are continued below, in one field each.
            return self._trusted and name == plain and plain not in _CONTINUED
        return not (self._drop_token and plain == b"authorization")


def is_grpc(headers: Headers) -> bool:
    content_type = first(headers, b"content-type")
    return content_type is not None and content_type.startswith(b"application/grpc")


class Peers:
    """Which peers are proxies whose word on the client's address is taken. Decisions are remembered, up to a bound."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks = [ip_network(network, strict=False) for network in trusted]
        self._decided: dict[bytes, bool] = {}
        either = (False, True)
        self.kept = {(trusted, drop_token): _Kept(trusted, drop_token) for trusted in either for drop_token in either}
        """Which fields are copied: by whether the peer is trusted, and whether the token stays here."""

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


def parse_address(text: bytes) -> IPv4Address | IPv6Address | None:
    """An address as it stands in ``X-Forwarded-For``; one that is IPv4 written as IPv6 becomes IPv4."""
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def upstream_fields(
    request: Request, peers: Peers, identifier: bytes, own: Iterable[Header], drop_token: bool
) -> Headers:
    """The fields that a service is sent: those of a ``Message``. ``own`` are the gateway's, and come last."""
    stream = request.stream
    trusted = peers.trusts(stream.peer)
    kept = peers.kept[trusted, drop_token]
    headers = cast("list[tuple[bytes, ...]]", request.headers)  # compiled, a pair would be taken apart and made anew
    out: list[Any] = []
    for header in headers:
        if kept[header[0]]:
            out.append(header)
    if trusted:
        out += _continued(request.headers, stream.peer, b"https" if stream.secure else b"http", request.authority)
    else:
        out.append((b"x-forwarded-for", stream.peer))
        out.append(_HTTPS if stream.secure else _HTTP)
        out.append((b"x-forwarded-host", request.authority))
    out.append(_VIA[request.clientproto])
    out.append((b"x-request-id", identifier))
    out += own
    return cast(Headers, out)


def _continued(headers: Headers, peer: bytes, proto: bytes, host: bytes) -> Headers:
    """What a trusted proxy said of the request's origin, with the proxy itself appended."""
    chain = [value for name, value in headers if name == b"x-forwarded-for"]
    for name, value in headers:
        if name == b"x-forwarded-proto":
            proto = value
        elif name == b"x-forwarded-host":
            host = value
    forwarded_for = b", ".join([*chain, peer])
    return [(b"x-forwarded-for", forwarded_for), (b"x-forwarded-proto", proto), (b"x-forwarded-host", host)]


def client_headers(
    headers: Headers, status: int, identifier: bytes, own: Iterable[Header], dropped: Set[bytes] = DROPPED
) -> Headers:
    """The fields of an upstream's response that go on to the client, and the gateway's ``own`` behind them."""
    if status == 204:
        headers = [header for header in headers if header[0] != b"content-length"]
    out = [header for header in headers if header[0] not in dropped]
    out += own
    out += (_VIA_HEADER, (b"x-request-id", identifier))
    return out
