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

from mypy_extensions import i64

from apigw.ops.access_line import without_secrets
from apigw.ops.series import METHODS
from apigw.ops.tracing.protobuf import MOST_TEXT, Texts, integer, key_of, length_delimited, text, utf8

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

REMEMBERED: Final = 1024
"""Hosts, addresses and targets whose encoded attributes are kept."""

GRPC_FAILURES: Final = frozenset({2, 4, 12, 13, 14, 15})
"""Statuses of gRPC that are failures of the server, by the conventions for gRPC."""

_UNHEXLIFY: Final = unhexlify
_TIMES: Final = Struct("<BQBQ").pack
_METHOD: Final = key_of("http.request.method")
_METHOD_ORIGINAL: Final = key_of("http.request.method_original")
_ROUTE: Final = key_of("http.route")
_STATUS: Final = key_of("http.response.status_code")
_RESENT: Final = key_of("http.request.resend_count")
_SCHEME: Final = key_of("url.scheme")
_PATH: Final = Texts(ATTRIBUTE, "url.path")
_QUERY: Final = Texts(ATTRIBUTE, "url.query")
_FULL: Final = Texts(ATTRIBUTE, "url.full")
_HOST: Final = Texts(ATTRIBUTE, "server.address")
_PORT: Final = key_of("server.port")
_CLIENT: Final = Texts(ATTRIBUTE, "client.address")
_AGENT: Final = Texts(ATTRIBUTE, "user_agent.original")
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
    if parent_id:
        return _UNHEXLIFY(b"".join((b"0a10", trace_id, b"1208", span_id, b"2208", parent_id)))
    return _UNHEXLIFY(b"".join((b"0a10", trace_id, b"1208", span_id)))


def times(started: float, ended: float) -> bytes:
    """Its times, Unix time in seconds. They are exact to the microsecond: a float has no more."""
    begun = i64(started * 1e6)
    return _TIMES(0x39, begun * 1000, 0x41, max(begun, i64(ended * 1e6)) * 1000)


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
    return _HOST.encode(host) + integer(ATTRIBUTE, _PORT, int(port[:5]))


@final
class Encoded:
    """Attributes that were encoded before, by what they say. What clients choose is forgotten now and then."""

    def __init__(self) -> None:
        self._statuses: dict[int, bytes] = {}
        self._hosts: dict[bytes, bytes] = {}
        self._secure_hosts: dict[bytes, bytes] = {}

    def status(self, status: int) -> bytes:
        found = self._statuses.get(status)
        if found is None:  # those that HTTP has are three digits, so that there are few
            found = self._statuses[status] = integer(ATTRIBUTE, _STATUS, status)
        return found

    def host(self, authority: bytes, secure: bool) -> bytes:
        known = self._secure_hosts if secure else self._hosts
        found = known.get(authority)
        if found is None:
            found = host_and_port(authority, 443 if secure else 80)
            if len(known) >= REMEMBERED:
                known.clear()
            if len(authority) <= 256:
                known[authority] = found
        return found


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
            _PATH.encode(without_secrets(path) if path.partition(b";")[1] else path),
            _CLIENT.encode(client),
        ]
        if len(query) > 1:
            parts.append(_QUERY.encode(without_secrets(query)[1:]))
        if authority:
            parts.append(encoded.host(authority, secure))
        if agent:
            parts.append(_AGENT.encode(agent))
        if state:
            parts.append(length_delimited(b"\x1a", utf8(state)))
        _ending(parts, encoded, status, error, grpc_status)
        return b"".join(parts)


@final
class _Target:
    """What the spans of requests to a target have in common: their ``head``, and how their URLs begin."""

    def __init__(self, method: bytes, target: str, service: str) -> None:
        scheme, _, authority = target.partition("://")
        host = host_and_port(authority.encode("utf-8"), 443 if scheme == "https" else 80)
        self.url = target.encode("utf-8")
        self.head = b"".join((CLIENT, LOCAL, named(method), host, text(ATTRIBUTE, _SERVICE, service.encode("utf-8"))))


@final
class ClientSpans:
    """The spans of tries, requests to services."""

    def __init__(self, encoded: Encoded) -> None:
        self._encoded = encoded
        self._targets: dict[tuple[bytes, str, str], _Target] = {}

    def _target(self, method: bytes, target: str, service: str) -> _Target:
        key = (method, target, service)
        found = self._targets.get(key)
        if found is None:
            found = _Target(method, target, service)
            if len(self._targets) >= REMEMBERED:
                self._targets.clear()
            if method in _KNOWN:
                self._targets[key] = found
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
        to = self._target(method, target, service)
        parts = [identity, times(started, ended), to.head, _FULL.encode(to.url + without_secrets(path))]
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
