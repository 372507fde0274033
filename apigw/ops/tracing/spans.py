# Compiled: see docs/decisions/compiled.md
"""Spans as the bytes of OpenTelemetry's protocol (``opentelemetry.proto.trace.v1.Span``), with the attributes of its
stable conventions for HTTP.

All of a span that does not change from one request to the next is encoded once, and the rest is put together in one
go, in the order that suits this: parsers take the fields of a message in any order. A span comes as an entry of the
field ``spans`` of ``ScopeSpans``. Measured: a span by the SDK takes 20 µs, this less than half of one.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from apigw.ops.series import METHODS
from apigw.ops.tracing.protobuf import (
    BYTES,
    MOST_TEXT,
    Texts,
    Upper,
    cut,
    foreign,
    integer,
    key_of,
    length_delimited,
    text,
    varint,
)

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
END: Final = b"\x41\0"
"""The tag of a span's end, and the lowest byte of that."""
PARENT: Final = b"\x22\x08"
"""What comes before the id of a parent."""
TRACE: Final = b"\x0a\x10"
"""The tag of the id of a span's trace."""
SERVER_SIZE: Final = 44
CLIENT_SIZE: Final = 54
"""Bytes of the ids and times of a span, with their tags but for ``TRACE``. ``Span`` is 16 bytes ``trace_id``, 8
``span_id``, 8 ``parent_span_id``, and twice 8 of Unix time in nanoseconds."""

REMEMBERED: Final = 1024
"""Hosts and targets whose encoded attributes are kept."""
LONGEST_HOST: Final = 256
"""Bytes of a host that is kept."""

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


def _answers(version: bytes) -> list[bytes]:
    """The attributes with the version of the protocol and each status; of 0 with the version alone."""
    of = text(ATTRIBUTE, _VERSION, version.removeprefix(b"HTTP/"))
    return [of, *[of + integer(ATTRIBUTE, _STATUS, status) for status in range(1, 1000)]]


_ANSWERS: Final = {version: _answers(version) for version in (b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2")}
_KNOWN: Final = frozenset(name.encode("ascii") for name in METHODS) | {b"CONNECT", b"TRACE"}


def ticks(seconds: float) -> i64:
    """Unix time in seconds as a span has it, but for its lowest byte, so in units of 256 ns. A float of this size
    has steps of 238."""
    return i64(seconds * (1e9 / 256))


_SPAN: Final = b"\x12"
_BEFORE_SPANS: Final = [_SPAN + varint(size) for size in range(1024)]


def before_span(size: i64) -> bytes:
    """The tag of a span of so many bytes, and its length."""
    return _BEFORE_SPANS[size] if size < 1024 else _SPAN + varint(size)


def _named(method: bytes, target: str = "") -> bytes:
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


def _failure(error: bytes, grpc_status: int) -> bytes:
    """What went wrong with an exchange, or a try."""
    out = integer(ATTRIBUTE, _GRPC, grpc_status) if grpc_status >= 0 else b""
    return out + text(ATTRIBUTE, _ERROR, error) + FAILED if error else out


@final
class Hosts:
    """Schemes, and attributes of the hosts that were asked for. What clients choose is forgotten now and then."""

    def __init__(self) -> None:
        self._plain: dict[bytes, bytes] = {}
        self._secure: dict[bytes, bytes] = {}

    def encode(self, authority: bytes, secure: bool) -> bytes:
        known = self._secure if secure else self._plain
        found = known.get(authority)
        if found is None:
            found = _HTTPS if secure else _HTTP
            if authority:
                found += host_and_port(authority, 443 if secure else 80)
            if len(known) >= REMEMBERED:
                known.clear()
            if len(authority) <= LONGEST_HOST:
                known[authority] = found
        return found


@final
class Heads:
    """What follows from the route and the method: kind, name and attributes of the ``server``'s span, and of the
    ``client``'s."""

    def __init__(self, method: bytes, pattern: str) -> None:
        self.method = method
        self.server = SERVER + _named(method, pattern)
        if pattern:
            self.server += text(ATTRIBUTE, _ROUTE, pattern.encode("utf-8"))
        self.client = CLIENT + LOCAL + _named(method)
        self._remote = self._secure = False
        self._authority = self._version = self._latest = b""
        self._status = -1

    def beginning(
        self, hosts: Hosts, authority: bytes, secure: bool, version: bytes, status: int, remote: bool
    ) -> bytes:
        """What the spans of most exchanges have in common, up to the tag of the trace's id. ``remote``: whether the
        exchange has a parent."""
        if (
            status == self._status
            and authority == self._authority
            and version == self._version
            and secure == self._secure
            and remote == self._remote
        ):
            return self._latest
        flags, host = REMOTE if remote else LOCAL, hosts.encode(authority, secure)
        made = flags + self.server + host + _ANSWERS[version][status] + TRACE
        if len(authority) <= LONGEST_HOST:
            self._status, self._authority, self._version = status, authority, version
            self._secure, self._remote, self._latest = secure, remote, made
        return made


@final
class ServerSpans:
    """The spans of exchanges of one route. ``pattern`` is empty where no route matched."""

    def __init__(self, pattern: str, hosts: Hosts) -> None:
        self._pattern = pattern
        self._hosts = hosts
        self._begun, self._over = Upper(END), Upper()
        self._heads: dict[bytes, Heads] = {}
        self._latest: Heads | None = None

    def heads(self, method: bytes) -> Heads:
        latest = self._latest  # most routes have one method: to compare it takes a tenth of looking it up
        if latest is not None and latest.method == method:
            return latest
        found = self._heads.get(method)
        if found is None:
            found = Heads(method, self._pattern)
            if method in _KNOWN:
                self._heads[method] = found
        self._latest = found
        return found

    def encode(
        self,
        trace_id: bytes,
        spans: bytes,
        parent_id: bytes,
        state: bytes,
        started: float,
        ended: float,
        heads: Heads,
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
        """Ids are bytes: ``spans`` has the seven that those of one exchange have in common, and ``parent_id`` is empty
        where the trace begins here. ``path`` and ``query`` are ASCII, as ``wire.target`` wants them, and without
        secrets. ``status`` is 0 where there was no answer, ``grpc_status`` -1. ``error`` is empty where the exchange
        did not fail."""
        path, agent = cut(path), foreign(agent)
        beginning = heads.beginning(self._hosts, authority, secure, version, status, len(parent_id) > 0)
        more = _failure(error, grpc_status)
        if len(parent_id):
            more += PARENT + parent_id
            if state:
                more += length_delimited(b"\x1a", foreign(state))
        if len(query):
            more += _QUERY.encode(query)
        before_path, before_client = _PATH.before(len(path)), _CLIENT.before(len(client))
        before_agent = _AGENT.before(len(agent))
        size: i64 = SERVER_SIZE + len(beginning) + len(more) + len(before_path) + len(path)
        size += len(before_client) + len(client) + len(before_agent) + len(agent)
        begun = ticks(started)
        over = max(begun, ticks(ended))
        return b"%b%b%b\x12\x08%b\0\x39\0%b%b%b%b%b%b%b%b%b%b%b%b%b" % (
            before_span(size),
            beginning,
            trace_id,
            spans,
            BYTES[begun & 255],
            BYTES[begun >> 8 & 255],
            self._begun.of(begun),
            BYTES[over & 255],
            BYTES[over >> 8 & 255],
            self._over.of(over),
            more,
            before_path,
            path,
            before_client,
            client,
            before_agent,
            agent,
        )


@final
class _Target:
    """How the URLs of a target begin, and the attributes of its address and of its ``service``."""

    def __init__(self, target: str, service: str) -> None:
        scheme, _, authority = target.partition("://")
        self.name = target
        self.service = service
        self.url = target.encode("utf-8")
        host = host_and_port(authority.encode("utf-8"), 443 if scheme == "https" else 80)
        self._attributes = host + text(ATTRIBUTE, _SERVICE, service.encode("utf-8"))
        self._head = self._version = self._latest = b""
        self._status = -1

    def beginning(self, head: bytes, version: bytes, status: int) -> bytes:
        """What the spans of most tries have in common, up to the tag of the trace's id. ``status`` is 0 where there
        was no answer."""
        if status != self._status or head != self._head or version != self._version:
            self._status, self._head, self._version = status, head, version
            answered = _ANSWERS[version][status] if status else b""
            self._latest = head + self._attributes + answered + TRACE
        return self._latest


@final
class ClientSpans:
    """The spans of tries, requests to services."""

    def __init__(self) -> None:
        self._targets: dict[str, _Target] = {}
        self._latest: _Target | None = None
        self._begun, self._over = Upper(END), Upper()

    def _target(self, name: str, service: str) -> _Target:
        latest = self._latest  # as ``ServerSpans.heads``
        if latest is not None and latest.name == name and latest.service == service:
            return latest
        found = self._targets.get(name)
        if found is None or found.service != service:
            if len(self._targets) >= REMEMBERED:
                self._targets.clear()
            found = self._targets[name] = _Target(name, service)
        self._latest = found
        return found

    def encode(
        self,
        trace_id: bytes,
        spans: bytes,
        number: i64,
        started: float,
        ended: float,
        head: bytes,
        version: bytes,
        target: str,
        service: str,
        path: bytes,
        status: int,
        error: bytes,
        grpc_status: int,
    ) -> bytes:
        """``number`` of the try: from 0; ``head``: ``Heads.client``; ``target`` as in logs, ``http://10.0.0.7:8080``;
        ``path`` with the query, ASCII, without secrets. The others are as with ``ServerSpans``."""
        to = self._target(target, service)
        url, beginning = to.url, to.beginning(head, version, status)
        more = _failure(error, grpc_status)
        if number:
            more += integer(ATTRIBUTE, _RESENT, int(number))
        if len(url) + len(path) > MOST_TEXT:
            path = path[: MOST_TEXT - len(url)]
        before_url = _FULL.before(len(url) + len(path))
        size: i64 = CLIENT_SIZE + len(beginning) + len(more) + len(before_url) + len(url) + len(path)
        # As of the server's span, but not by a function: its bytes would be made and copied once more.
        begun = ticks(started)
        over = max(begun, ticks(ended))
        return b"%b%b%b\x12\x08%b%b\x22\x08%b\0\x39\0%b%b%b%b%b%b%b%b%b%b" % (
            before_span(size),
            beginning,
            trace_id,
            spans,
            BYTES[number + 1 & 255],
            spans,
            BYTES[begun & 255],
            BYTES[begun >> 8 & 255],
            self._begun.of(begun),
            BYTES[over & 255],
            BYTES[over >> 8 & 255],
            self._over.of(over),
            more,
            before_url,
            url,
            path,
        )
