# Compiled: see docs/decisions/compiled.md
"""Spans as the bytes of OpenTelemetry's protocol (``opentelemetry.proto.trace.v1.Span``), with the attributes of its
stable conventions for HTTP.

All of a span that does not change from one request to the next is encoded once. Measured: a span by the SDK takes
20 µs, this less than one.
"""

from __future__ import annotations

from binascii import unhexlify
from struct import Struct
from typing import Final, final

from apigw.ops.access_line import without_secrets
from apigw.ops.series import METHODS
from apigw.ops.tracing.protobuf import integer, key_of, length_delimited, text, utf8

ATTRIBUTE: Final = b"\x4a"
"""The tag of a span's attributes."""
SERVER: Final = b"\x30\x02"
CLIENT: Final = b"\x30\x03"
"""The kind of a span."""
FAILED: Final = b"\x7a\x02\x18\x02"
"""The status ``Error``, without a description."""
LOCAL: Final = b"\x85\x01\x01\x01\x00\x00"
REMOTE: Final = b"\x85\x01\x01\x03\x00\x00"
"""``flags``: sampled; the parent is known to be of this process, or of another one."""

MOST_TEXT: Final = 1024
"""Bytes of a path, a query, a URL, a user agent that a span has."""
REMEMBERED: Final = 1024
"""Hosts, addresses and targets whose encoded attributes are kept."""

GRPC_FAILURES: Final = frozenset({2, 4, 12, 13, 14, 15})
"""Statuses of gRPC that are failures of the server, by the conventions for gRPC."""

_TIMES: Final = Struct("<BQBQ").pack
_METHOD: Final = key_of("http.request.method")
_METHOD_ORIGINAL: Final = key_of("http.request.method_original")
_ROUTE: Final = key_of("http.route")
_STATUS: Final = key_of("http.response.status_code")
_RESENT: Final = key_of("http.request.resend_count")
_SCHEME: Final = key_of("url.scheme")
_PATH: Final = key_of("url.path")
_QUERY: Final = key_of("url.query")
_FULL: Final = key_of("url.full")
_HOST: Final = key_of("server.address")
_PORT: Final = key_of("server.port")
_CLIENT: Final = key_of("client.address")
_AGENT: Final = key_of("user_agent.original")
_VERSION: Final = key_of("network.protocol.version")
_ERROR: Final = key_of("error.type")
_GRPC: Final = key_of("rpc.grpc.status_code")
_SERVICE: Final = key_of("apigw.service")

_VERSIONS: Final = {
    version: text(ATTRIBUTE, _VERSION, version.removeprefix(b"HTTP/"))
    for version in (b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2")
}
_KNOWN: Final = frozenset(name.encode("ascii") for name in METHODS) | {b"CONNECT", b"TRACE"}


def ids(trace_id: bytes, span_id: bytes, parent_id: bytes) -> bytes:
    """The fields with the ids of a span, which are given in hexadecimal digits."""
    own = b"".join((b"\x0a\x10", unhexlify(trace_id), b"\x12\x08", unhexlify(span_id)))
    return own + b"\x22\x08" + unhexlify(parent_id) if parent_id else own


def times(started: float, ended: float) -> bytes:
    """Its times, Unix time in seconds. They are exact to the microsecond: a float has no more."""
    begun = int(started * 1e6) * 1000
    return _TIMES(0x39, begun, 0x41, max(begun, int(ended * 1e6) * 1000))


def named(method: bytes, target: str = "") -> bytes:
    """The name of a span, and its attribute with the method."""
    known = method in _KNOWN
    name = method if known else b"HTTP"
    if target:
        name = name + b" " + target.encode("utf-8")
    out = length_delimited(b"\x2a", name) + text(ATTRIBUTE, _METHOD, method if known else b"_OTHER")
    return out if known else out + text(ATTRIBUTE, _METHOD_ORIGINAL, utf8(method[:MOST_TEXT]))


def host_and_port(authority: bytes, default: int) -> bytes:
    """The attributes of a server, from ``host:port``."""
    host, colon, port = authority.rpartition(b":")
    if not colon or b"]" in port or not port.isdigit():
        host, port = authority, b"%d" % default
    host = host.removeprefix(b"[").removesuffix(b"]")
    return text(ATTRIBUTE, _HOST, utf8(host[:MOST_TEXT])) + integer(ATTRIBUTE, _PORT, int(port[:5]))


@final
class Encoded:
    """Attributes that were encoded before, by what they say. What clients choose is forgotten now and then."""

    def __init__(self) -> None:
        self._statuses = [integer(ATTRIBUTE, _STATUS, status) for status in range(1000)]
        self._clients: dict[bytes, bytes] = {}
        self._hosts: dict[bytes, bytes] = {}
        self._agents: dict[bytes, bytes] = {}

    def status(self, status: int) -> bytes:
        return self._statuses[status] if 0 <= status < 1000 else integer(ATTRIBUTE, _STATUS, max(status, 0))

    def client(self, address: bytes) -> bytes:
        found = self._clients.get(address)
        if found is None:
            found = text(ATTRIBUTE, _CLIENT, address)
            _remember(self._clients, address, found)
        return found

    def agent(self, agent: bytes) -> bytes:
        found = self._agents.get(agent)
        if found is None:
            found = text(ATTRIBUTE, _AGENT, utf8(agent[:MOST_TEXT]))
            _remember(self._agents, agent, found)
        return found

    def host(self, authority: bytes, secure: bool) -> bytes:
        found = self._hosts.get(authority)
        if found is None:
            found = host_and_port(authority, 443 if secure else 80)
            if b":" in authority:  # else it depends on ``secure``
                _remember(self._hosts, authority, found)
        return found


def _remember(known: dict[bytes, bytes], key: bytes, encoded: bytes) -> None:
    if len(known) >= REMEMBERED:
        known.clear()
    if len(key) <= 256:
        known[key] = encoded


@final
class ServerSpans:
    """The spans of exchanges of one route. ``pattern`` is empty where no route matched."""

    def __init__(self, pattern: str, encoded: Encoded) -> None:
        self._pattern = pattern
        self._encoded = encoded
        self._heads: dict[tuple[bytes, bytes, bool], bytes] = {}

    def _head(self, method: bytes, version: bytes, secure: bool) -> bytes:
        key = (method, version, secure)
        found = self._heads.get(key)
        if found is None:
            parts = [SERVER, named(method, self._pattern), _VERSIONS[version]]
            if self._pattern:
                parts.append(text(ATTRIBUTE, _ROUTE, self._pattern.encode("utf-8")))
            parts.append(text(ATTRIBUTE, _SCHEME, b"https" if secure else b"http"))
            found = b"".join(parts)
            if method in _KNOWN:
                self._heads[key] = found
        return found

    def encode(
        self,
        identity: bytes,
        state: bytes,
        remote: bool,
        started: float,
        ended: float,
        method: bytes,
        version: bytes,
        secure: bool,
        path: bytes,
        query: bytes,
        authority: bytes,
        client: bytes,
        agent: bytes,
        status: int,
        error: bytes,
        grpc_status: int,
    ) -> bytes:
        """``identity`` is made by ``ids``. ``query`` begins with its ``?``. ``status`` is 0 where there was no answer,
        ``grpc_status`` -1. ``error`` is empty where the exchange did not fail."""
        encoded = self._encoded
        parts = [
            identity,
            REMOTE if remote else LOCAL,
            times(started, ended),
            self._head(method, version, secure),
            text(ATTRIBUTE, _PATH, utf8(path[:MOST_TEXT])),
            encoded.client(client),
        ]
        if len(query) > 1:
            parts.append(text(ATTRIBUTE, _QUERY, utf8(without_secrets(query)[1 : MOST_TEXT + 1])))
        if authority:
            parts.append(encoded.host(authority, secure))
        if agent:
            parts.append(encoded.agent(agent))
        if state:
            parts.append(length_delimited(b"\x1a", utf8(state)))
        _ending(parts, encoded, status, error, grpc_status)
        return b"".join(parts)


@final
class ClientSpans:
    """The spans of tries, requests to services."""

    def __init__(self, encoded: Encoded) -> None:
        self._encoded = encoded
        self._heads: dict[tuple[bytes, str, str], bytes] = {}

    def _head(self, method: bytes, target: str, service: str) -> bytes:
        key = (method, target, service)
        found = self._heads.get(key)
        if found is None:
            scheme, _, authority = target.partition("://")
            found = b"".join(
                (
                    CLIENT,
                    LOCAL,
                    named(method),
                    host_and_port(authority.encode("utf-8"), 443 if scheme == "https" else 80),
                    text(ATTRIBUTE, _SERVICE, service.encode("utf-8")),
                )
            )
            if len(self._heads) >= REMEMBERED:
                self._heads.clear()
            if method in _KNOWN:
                self._heads[key] = found
        return found

    def encode(
        self,
        identity: bytes,
        started: float,
        ended: float,
        method: bytes,
        version: bytes,
        target: str,
        service: str,
        path: bytes,
        status: int,
        error: bytes,
        resent: int,
        grpc_status: int,
    ) -> bytes:
        """``target`` as in logs, ``http://10.0.0.7:8080``; ``path`` with the query; ``resent``: its number, from 0."""
        parts = [
            identity,
            times(started, ended),
            self._head(method, target, service),
            text(ATTRIBUTE, _FULL, target.encode("utf-8") + utf8(without_secrets(path)[:MOST_TEXT])),
        ]
        if status:
            parts.append(_VERSIONS[version])
        if resent:
            parts.append(integer(ATTRIBUTE, _RESENT, resent))
        _ending(parts, self._encoded, status, error, grpc_status)
        return b"".join(parts)


def _ending(parts: list[bytes], encoded: Encoded, status: int, error: bytes, grpc_status: int) -> None:
    if status:
        parts.append(encoded.status(status))
    if grpc_status >= 0:
        parts.append(integer(ATTRIBUTE, _GRPC, grpc_status))
    if error:
        parts += (text(ATTRIBUTE, _ERROR, error), FAILED)
