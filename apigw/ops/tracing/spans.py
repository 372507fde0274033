# Compiled: see docs/decisions/compiled.md
"""Spans as the bytes of OpenTelemetry's protocol (``opentelemetry.proto.trace.v1.Span``), with the attributes of its
stable conventions for HTTP.

All of a span that does not change from one request to the next is encoded once. Measured: a span by the SDK takes
20 µs, this less than one.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from apigw.ops.series import METHODS
from apigw.ops.tracing.protobuf import Texts, cut, fixed64, foreign, integer, key_of, length_delimited, text

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
PARENT: Final = b"\x22\x08"
"""What comes before the id of a parent."""

REMEMBERED: Final = 1024
"""Hosts and targets whose encoded attributes are kept."""

GRPC_FAILURES: Final = frozenset({2, 4, 12, 13, 14, 15})
"""Statuses of gRPC that are failures of the server, by the conventions for gRPC."""

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

_HTTP: Final = text(ATTRIBUTE, _SCHEME, b"http")
_HTTPS: Final = text(ATTRIBUTE, _SCHEME, b"https")
_VERSIONS: Final = {
    version: text(ATTRIBUTE, _VERSION, version.removeprefix(b"HTTP/"))
    for version in (b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2")
}
_STATUSES: Final = [b"", *[integer(ATTRIBUTE, _STATUS, status) for status in range(1, 1000)]]
_KNOWN: Final = frozenset(name.encode("ascii") for name in METHODS) | {b"CONNECT", b"TRACE"}


def nanoseconds(seconds: float) -> i64:
    """Unix time in seconds as a span has it. It is exact to the microsecond: a float has no more."""
    return i64(seconds * 1e6) * 1000


def named(method: bytes, target: str = "") -> bytes:
    """The name of a span, and its attribute with the method."""
    known = method in _KNOWN
    name = method if known else b"HTTP"
    if target:
        name = name + b" " + target.encode("utf-8")
    out = length_delimited(b"\x2a", name) + text(ATTRIBUTE, _METHOD, method if known else b"_OTHER")
    return out if known else out + text(ATTRIBUTE, _METHOD_ORIGINAL, foreign(method))


def host_and_port(authority: bytes, default: int) -> bytes:
    """The attributes of a server, from ``host:port``."""
    host, colon, port = authority.rpartition(b":")
    if not colon or b"]" in port or not port.isdigit():
        host, port = authority, b"%d" % default
    host = host.removeprefix(b"[").removesuffix(b"]")
    return _HOST.encode(host) + integer(ATTRIBUTE, _PORT, int(port[:5]))


def _outcome(status: int, error: bytes, grpc_status: int) -> bytes:
    """What says how an exchange, or a try, ended."""
    out = _STATUSES[status]
    if grpc_status >= 0:
        out += integer(ATTRIBUTE, _GRPC, grpc_status)
    if error:
        out += text(ATTRIBUTE, _ERROR, error) + FAILED
    return out


@final
class Hosts:
    """Attributes of the hosts that were asked for. What clients choose is forgotten now and then."""

    def __init__(self) -> None:
        self._plain: dict[bytes, bytes] = {}
        self._secure: dict[bytes, bytes] = {}

    def encode(self, authority: bytes, secure: bool) -> bytes:
        known = self._secure if secure else self._plain
        found = known.get(authority)
        if found is None:
            found = host_and_port(authority, 443 if secure else 80) if authority else b""
            if len(known) >= REMEMBERED:
                known.clear()
            if len(authority) <= 256:
                known[authority] = found
        return found


@final
class ServerSpans:
    """The spans of exchanges of one route. ``pattern`` is empty where no route matched."""

    def __init__(self, pattern: str, hosts: Hosts) -> None:
        self._pattern = pattern
        self._hosts = hosts
        self._heads: dict[bytes, bytes] = {}

    def _head(self, method: bytes) -> bytes:
        found = self._heads.get(method)
        if found is None:
            found = SERVER + named(method, self._pattern)
            if self._pattern:
                found += text(ATTRIBUTE, _ROUTE, self._pattern.encode("utf-8"))
            if method in _KNOWN:
                self._heads[method] = found
        return found

    def encode(
        self,
        trace_id: bytes,
        span_id: bytes,
        parent_id: bytes,
        state: bytes,
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
        """Ids are bytes; ``parent_id`` is empty where the trace begins here. ``path`` and ``query`` are ASCII, as
        ``wire.target`` wants them, and without secrets. ``status`` is 0 where there was no answer, ``grpc_status`` -1.
        ``error`` is empty where the exchange did not fail."""
        path, query, agent = cut(path), cut(query), foreign(agent)
        begun = nanoseconds(started)
        return b"\x0a\x10%b\x12\x08%b%b%b\x39%b\x41%b%b%b%b%b%b%b%b%b%b%b%b%b%b" % (
            trace_id,
            span_id,
            PARENT + parent_id + REMOTE if parent_id else LOCAL,
            length_delimited(b"\x1a", foreign(state)) if state else b"",
            fixed64(begun),
            fixed64(max(begun, nanoseconds(ended))),
            self._head(method),
            _VERSIONS[version],
            _HTTPS if secure else _HTTP,
            _PATH.before(len(path)),
            path,
            _QUERY.before(len(query)),
            query,
            self._hosts.encode(authority, secure),
            _CLIENT.before(len(client)),
            client,
            _AGENT.before(len(agent)),
            agent,
            _outcome(status, error, grpc_status),
        )


@final
class _Target:
    """How the URLs of a target begin, and the attributes of its address."""

    def __init__(self, target: str) -> None:
        scheme, _, authority = target.partition("://")
        self.url = target.encode("utf-8")
        self.host = host_and_port(authority.encode("utf-8"), 443 if scheme == "https" else 80)


@final
class ClientSpans:
    """The spans of tries, requests to services."""

    def __init__(self) -> None:
        self._heads = {method: _client_head(method) for method in _KNOWN}
        self._services: dict[str, bytes] = {}
        self._targets: dict[str, _Target] = {}

    def _service(self, name: str) -> bytes:
        found = self._services.get(name)
        if found is None:
            found = self._services[name] = text(ATTRIBUTE, _SERVICE, name.encode("utf-8"))
        return found

    def _target(self, name: str) -> _Target:
        found = self._targets.get(name)
        if found is None:
            if len(self._targets) >= REMEMBERED:
                self._targets.clear()
            found = self._targets[name] = _Target(name)
        return found

    def encode(
        self,
        trace_id: bytes,
        span_id: bytes,
        parent_id: bytes,
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
        """``target`` as in logs, ``http://10.0.0.7:8080``; ``path`` with the query, ASCII, without secrets; ``resent``:
        its number, from 0."""
        to = self._target(target)
        begun = nanoseconds(started)
        url = cut(to.url + path)
        return b"\x0a\x10%b\x12\x08%b\x22\x08%b\x39%b\x41%b%b%b%b%b%b%b%b%b" % (
            trace_id,
            span_id,
            parent_id,
            fixed64(begun),
            fixed64(max(begun, nanoseconds(ended))),
            self._heads.get(method) or _client_head(method),
            to.host,
            self._service(service),
            _FULL.before(len(url)),
            url,
            _VERSIONS[version] if status else b"",
            integer(ATTRIBUTE, _RESENT, resent) if resent else b"",
            _outcome(status, error, grpc_status),
        )


def _client_head(method: bytes) -> bytes:
    return CLIENT + LOCAL + named(method)
