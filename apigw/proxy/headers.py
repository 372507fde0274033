# Compiled: see docs/decisions/compiled.md
"""All rules for header fields that pass the gateway.

The client's fields are copied, except hop-by-hop fields, identity headers, and forwarding headers of a peer that is not
a trusted proxy. The gateway's own fields are added afterwards, so that clients cannot forge them.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any, Final, cast

from apigw.contract.exchange import DROPPED, NOTHING
from apigw.contract.principal import IDENTITY
from apigw.wire.headers import FOLDED, HOP_BY_HOP, NOT_IN_TRAILERS, Header, Headers
from apigw.wire.request import UNIX_PEER, Request

FORWARDED: Final = frozenset({b"forwarded", b"x-real-ip"})
WRITTEN_HERE: Final = frozenset({b"host", b"content-length", b"expect", b"x-request-id"})
"""Fields of a request that are not copied, but written from the parsed values."""
HTTPOXY: Final = b"proxy"
"""Removed because CGI turns it into HTTP_PROXY, which programs use for their requests (CVE-2016-5385, "httpoxy")."""

_VIA: Final[dict[bytes, Any]] = {
    b"HTTP/1.0": (b"via", b"1.0 apigw"),
    b"HTTP/1.1": (b"via", b"1.1 apigw"),
    b"HTTP/2": (b"via", b"2 apigw"),
}
_HTTP: Final[Any] = (b"x-forwarded-proto", b"http")
_HTTPS: Final[Any] = (b"x-forwarded-proto", b"https")
_REMEMBERED: Final = 4096
_ALWAYS: Final = 32
"""Names that are remembered for each set of rules, and for all sets together, beyond those that each has for sure.
Requests of one route have some twenty names."""
_LONGEST: Final = 64
"""Of the names that are remembered, so that they hold 3 MiB at most. Those that are sent all the time are shorter."""
_CONTINUED: Final = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"})
_OURS: Final = IDENTITY | _CONTINUED | {b"via", b"x-request-id"}
"""Fields that the gateway writes."""
_SETS: Final = 64
"""Sets of withheld names that are remembered for each set of rules. Those of a route's requests are few."""


class Memory:
    """How many names may still be remembered by all rules of a configuration, beyond those that each has for sure."""

    def __init__(self) -> None:
        self.left = _REMEMBERED - _ALWAYS


class _Kept(dict[bytes, bool]):
    """Whether a field of a request is copied, by its name: each name is judged once and remembered, up to a bound."""

    def __init__(self, trusted: bool, stripped: frozenset[bytes], memory: Memory) -> None:
        super().__init__()
        self._trusted = trusted
        self._stripped = stripped
        self._memory = memory

    def __missing__(self, name: bytes) -> bool:
        kept = self._judge(name)
        if len(name) <= _LONGEST:
            if len(self) < _ALWAYS:
                self[name] = kept
            elif self._memory.left:
                self._memory.left -= 1
                self[name] = kept
        return kept

    def _judge(self, name: bytes) -> bool:
        # CGI cannot tell ``X_User_ID``, and some servers' CGI ``X+User~ID``, from ``X-User-ID`` (RFC 3875 §4.1.18).
        plain = name.translate(FOLDED)
        if plain in HOP_BY_HOP or plain in WRITTEN_HERE or plain in IDENTITY or plain == HTTPOXY:
            return False
        if plain in self._stripped:
            return False
        if plain in FORWARDED or plain.startswith(b"x-forwarded-"):
            # What a trusted proxy says it says in so many words; three of them are continued below, in one field each.
            return self._trusted and name == plain and plain not in _CONTINUED
        return True


class CopyRules:
    """Which fields of a client's request go on to a service: all but those of its connection, of identity, of its
    origin unless the peer is trusted, and those ``stripped``: names in lower case, each in every spelling. All rules of
    a configuration share the ``memory``."""

    def __init__(self, stripped: frozenset[bytes] = frozenset(), memory: Memory | None = None) -> None:
        self._memory = memory or Memory()
        self.stripped = frozenset(name.translate(FOLDED) for name in stripped)
        self.of_trusted = _Kept(True, self.stripped, self._memory)
        self.of_others = _Kept(False, self.stripped, self._memory)
        self.withholds_ours = False
        """Whether fields that the gateway writes are withheld, too."""
        self.less: dict[Set[bytes], CopyRules] = {}
        """Those ``without`` so many sets of names."""

    def without(self, withheld: Set[bytes]) -> CopyRules:
        """The same rules for a request of which these names are withheld."""
        less = self.less.get(withheld)
        if less is None:
            less = CopyRules(self.stripped | withheld, self._memory)
            less.withholds_ours = not _OURS.isdisjoint(withheld)
            if len(self.less) < _SETS:
                self.less[withheld] = less
        return less


def upstream_fields(
    request: Request,
    trusted: bool,
    identifier: bytes,
    own: Iterable[Header],
    rules: CopyRules,
    withheld: Set[bytes] = NOTHING,
    sent: Iterable[Header] = (),
) -> Headers:
    """The fields of the request to the service. ``own`` are identity headers, ``withheld`` none of all these, and
    ``sent`` come last."""
    stream = request.stream
    if withheld:
        rules = rules.without(withheld)
    kept = rules.of_trusted if trusted else rules.of_others
    headers = cast("list[tuple[bytes, ...]]", request.headers)  # compiled, a pair would be taken apart and made anew
    out: list[Any] = []
    for header in headers:
        if kept[header[0]]:
            out.append(header)
    if trusted:
        out += _continued(request.headers, stream.peer, b"https" if stream.secure else b"http", request.authority)
    else:
        if stream.peer != UNIX_PEER:
            out.append((b"x-forwarded-for", stream.peer))
        out.append(_HTTPS if stream.secure else _HTTP)
        if request.authority:
            out.append((b"x-forwarded-host", request.authority))
    out.append(_VIA[request.clientproto])
    out.append((b"x-request-id", identifier))
    out += own
    if rules.withholds_ours:
        out = [header for header in out if header[0] not in withheld]
    out += sent
    return cast(Headers, out)


def upstream_trailers(trailers: Headers, rules: CopyRules, withheld: Set[bytes] = NOTHING) -> Headers:
    """The trailers of the request to the service: no field that would not go there in the head."""
    kept = rules.without(withheld).of_others if withheld else rules.of_others
    return [field for field in trailers if field[0] not in NOT_IN_TRAILERS and kept[field[0]]]


def client_trailers(trailers: Headers, dropped: Set[bytes]) -> Headers:
    """The trailers of the response to the client, without ``dropped``."""
    return [field for field in trailers if field[0] not in NOT_IN_TRAILERS and field[0] not in dropped]


def _continued(headers: Headers, peer: bytes, proto: bytes, host: bytes) -> Headers:
    """What a trusted proxy said of the request's origin, with the proxy itself appended."""
    chain = [value for name, value in headers if name == b"x-forwarded-for"]
    for name, value in headers:
        if name == b"x-forwarded-proto":
            proto = value
        elif name == b"x-forwarded-host":
            host = value
    if peer != UNIX_PEER:
        chain.append(peer)
    out = [(b"x-forwarded-for", b", ".join(chain))] if chain else []
    out.append((b"x-forwarded-proto", proto))
    if host:
        out.append((b"x-forwarded-host", host))
    return out


def client_headers(
    headers: Headers,
    status: int,
    identifier: bytes,
    own: Iterable[Header],
    dropped: Set[bytes] = DROPPED,
    version: bytes = b"HTTP/1.1",
) -> Headers:
    """The fields of the response to the client: those of the service, and the gateway's ``own`` at the end.

    ``version`` is the HTTP version of the service's answer.
    """
    fields = cast("list[tuple[bytes, ...]]", headers)  # compiled, a pair would be taken apart and made anew
    out: list[Any] = []
    for field in fields:
        if field[0] not in dropped:
            out.append(field)
    if status == 204:
        out = [field for field in out if field[0] != b"content-length"]
    out += own
    out.append(_VIA[version])
    out.append((b"x-request-id", identifier))
    return cast(Headers, out)
