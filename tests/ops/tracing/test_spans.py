"""Spans as bytes, read by the official classes of OpenTelemetry."""

from __future__ import annotations

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status
from support.collector import spans_in, values

from apigw.ops.tracing.batches import MOST_BATCH, MOST_WAITING, Batches, resource
from apigw.ops.tracing.protobuf import length_delimited
from apigw.ops.tracing.spans import ClientSpans, Heads, Hosts, ServerSpans

TRACE, SPANS, PARENT = (
    bytes.fromhex(digits) for digits in ("0af7651916cd43dd8448eb211c80319c", "b7ad6b71692033", "00f067aa0ba902b7")
)
STARTED = 1_790_000_000.25


def read(encoded: bytes) -> Span:
    """The one span that was encoded."""
    (span,) = ScopeSpans.FromString(encoded).spans
    return span


def server(
    pattern: str = "/orders/:id",
    *,
    parent: bytes = b"",
    state: bytes = b"",
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
    secure: bool = False,
    path: bytes = b"/orders/7",
    query: bytes = b"",
    authority: bytes = b"shop.example:8080",
    agent: bytes = b"",
    status: int = 200,
    error: bytes = b"",
    grpc_status: int = -1,
    spans: ServerSpans | None = None,
    times: tuple[float, float] = (STARTED, STARTED + 0.25),
) -> Span:
    spans = spans or ServerSpans(pattern, Hosts())
    encoded = spans.encode(
        TRACE,
        SPANS,
        parent,
        state,
        *times,
        spans.heads(method),
        version,
        secure,
        path,
        query,
        authority,
        b"192.0.2.1",
        agent,
        status,
        error,
        grpc_status,
    )
    return read(encoded)


def test_an_exchange() -> None:
    """Its span has ids, times, and the attributes that the conventions for HTTP require or recommend."""
    span = server(parent=PARENT, state=b"a=1", query=b"x=1", agent=b"curl/8", version=b"HTTP/2", secure=True)
    assert (span.trace_id, span.span_id) == (TRACE, SPANS + b"\0")
    assert (span.parent_span_id, span.trace_state) == (PARENT, "a=1")
    assert (span.name, span.kind, span.flags) == ("GET /orders/:id", Span.SPAN_KIND_SERVER, 0x301)
    assert span.start_time_unix_nano == pytest.approx(1_790_000_000_250_000_000, abs=256)
    assert span.end_time_unix_nano == pytest.approx(1_790_000_000_500_000_000, abs=256)
    assert not span.HasField("status")
    assert values(span.attributes) == {
        "http.request.method": "GET",
        "http.route": "/orders/:id",
        "http.response.status_code": 200,
        "url.scheme": "https",
        "url.path": "/orders/7",
        "url.query": "x=1",
        "server.address": "shop.example",
        "server.port": 8080,
        "client.address": "192.0.2.1",
        "network.protocol.version": "2",
        "user_agent.original": "curl/8",
    }


def test_an_exchange_that_begins_a_trace() -> None:
    """It has no parent; without a route it has the name of its method alone, and no query where there is none."""
    span = server("")
    assert (span.parent_span_id, span.trace_state, span.name, span.flags) == (b"", "", "GET", 0x101)
    assert {"http.route", "url.query", "user_agent.original", "error.type"}.isdisjoint(values(span.attributes))


def test_failures() -> None:
    """A span that failed has the status Error and error.type, without an answer no status code."""
    span = server(status=0, error=b"client_left")
    assert span.status == Status(code=Status.STATUS_CODE_ERROR)
    assert values(span.attributes)["error.type"] == "client_left"
    assert "http.response.status_code" not in values(span.attributes)
    assert values(server(error=b"14", grpc_status=14).attributes)["rpc.grpc.status_code"] == 14


@pytest.mark.parametrize(
    ("authority", "secure", "expected"),
    [
        (b"shop.example", False, ("shop.example", 80)),
        (b"shop.example", True, ("shop.example", 443)),
        (b"[::1]", False, ("::1", 80)),
        (b"[::1]:8443", True, ("::1", 8443)),
        (b"shop.example:999999999", False, ("shop.example", 99999)),
        (b"shop.example:x", False, ("shop.example:x", 80)),
    ],
)
def test_hosts(authority: bytes, secure: bool, expected: tuple[str, int]) -> None:
    """The host that the client asked for, and its port; the same the second time."""
    spans = ServerSpans("/", Hosts())
    for _ in range(2):
        found = values(server(authority=authority, secure=secure, spans=spans).attributes)
        assert (found["server.address"], found["server.port"]) == expected


def test_what_clients_send() -> None:
    """Unknown methods are _OTHER; text that is not UTF-8 is replaced, what is long is cut."""
    span = server(method=b"PURGE", path=b"/" + b"x" * 5000, agent=b"\xe9" * 2000)
    found = values(span.attributes)
    assert (span.name, found["http.request.method"]) == ("HTTP /orders/:id", "_OTHER")
    assert found["http.request.method_original"] == "PURGE"
    assert found["url.path"] == "/" + "x" * 1023
    assert found["user_agent.original"] == "\ufffd" * 1024


@pytest.mark.parametrize("length", [1, 90, 100, 107, 108, 109, 110, 111, 112, 113, 114, 120, 127, 128, 300, 1024])
def test_lengths(length: int) -> None:
    """Texts of each length are read as they were written: lengths have one byte up to 127, then two."""
    path = b"/" * length
    assert values(server(path=path).attributes)["url.path"] == path.decode()


@pytest.mark.parametrize(
    "times",
    [(0.0, 0.0), (1.0, 4.294967295), (4.294967296, 4.294967297), (STARTED, STARTED + 3600), (STARTED + 5, STARTED + 4)],
)
def test_times(times: tuple[float, float]) -> None:
    """They are as exact as the clock, whatever their bytes are; the end is not before the beginning."""
    span = server(times=times)
    assert span.start_time_unix_nano == pytest.approx(times[0] * 1e9, abs=400)
    assert span.end_time_unix_nano == pytest.approx(max(times) * 1e9, abs=400)


def test_a_target_of_two_services() -> None:
    """The span of a try names the service that it was for."""
    spans, head = ClientSpans(), Heads(b"GET", "/").client
    for service in ("orders", "users", "orders"):
        found = read(
            spans.encode(TRACE, SPANS, 0, 1.0, 2.0, head, b"HTTP/2", "http://a:1", service, b"/", 200, b"", -1)
        )
        assert values(found.attributes)["apigw.service"] == service


def test_long_urls() -> None:
    """They are cut at 1024 bytes, too."""
    path, head = b"/" * 2000, Heads(b"GET", "/").client
    found = read(ClientSpans().encode(TRACE, SPANS, 0, 1.0, 2.0, head, b"", "http://a:1", "a", path, 0, b"", -1))
    assert values(found.attributes)["url.full"] == "http://a:1" + "/" * 1014


def test_what_follows_another() -> None:
    """Each span has its own host, version, status and parent, whatever those before it had."""
    spans = ServerSpans("/", Hosts())
    for parent, secure, version in ((b"", False, b"HTTP/1.1"), (PARENT, True, b"HTTP/2"), (b"", False, b"HTTP/1.0")):
        for host, status in ((b"a", 200), (b"b", 200), (b"b", 404), (b"c" * 300, 200), (b"c" * 300, 201)):
            span = server(parent=parent, secure=secure, version=version, authority=host, status=status, spans=spans)
            found = values(span.attributes)
            assert (span.parent_span_id, span.flags) == (parent, 0x301 if parent else 0x101)
            assert (found["server.address"], found["server.port"]) == (host.decode(), 443 if secure else 80)
            assert found["url.scheme"] == ("https" if secure else "http")
            assert found["network.protocol.version"] == version.decode().removeprefix("HTTP/")
            assert found["http.response.status_code"] == status


def test_memory_is_bounded() -> None:
    """However many clients and hosts there are, the last ones are encoded as the first."""
    spans = ServerSpans("/", Hosts())
    for number in range(3000):
        host, agent = b"h%d:80" % number, b"agent %d" % number
        found = values(server(authority=host, agent=agent, spans=spans).attributes)
        assert (found["server.address"], found["user_agent.original"]) == (f"h{number}", f"agent {number}")


def test_a_try() -> None:
    """Its span has the target, the whole URL, which resend it is, and what it was answered with."""
    spans, to = ClientSpans(), ("https://10.0.0.7:8443", "orders")
    head, path = Heads(b"GET", "/orders").client, b"/orders?x=1"
    span = read(spans.encode(TRACE, SPANS, 1, 1.0, 2.0, head, b"HTTP/2", *to, path, 503, b"503", -1))
    assert (span.name, span.kind) == ("GET", Span.SPAN_KIND_CLIENT)
    assert (span.trace_id, span.span_id, span.parent_span_id) == (TRACE, SPANS + b"\2", SPANS + b"\0")
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert values(span.attributes) == {
        "http.request.method": "GET",
        "server.address": "10.0.0.7",
        "server.port": 8443,
        "apigw.service": "orders",
        "url.full": "https://10.0.0.7:8443/orders?x=1",
        "network.protocol.version": "2",
        "http.request.resend_count": 1,
        "http.response.status_code": 503,
        "error.type": "503",
    }
    head = Heads(b"PURGE", "/orders").client
    other = read(spans.encode(TRACE, SPANS, 0, 2.0, 1.0, head, b"", *to, b"/", 0, b"connect", -1))
    assert other.start_time_unix_nano == other.end_time_unix_nano  # a clock that was set back
    told = values(other.attributes)
    assert "network.protocol.version" not in told
    assert (told["http.request.method"], told["http.request.method_original"]) == ("_OTHER", "PURGE")


def test_batches() -> None:
    """A batch is a request of the protocol; a complete one is announced."""
    full: list[int] = []
    batches = Batches(lambda: full.append(1), lambda spans: None)
    batches.resource = resource({"service.name": "edge"})
    span = length_delimited(b"\x12", server().SerializeToString())
    added = 0
    while not full:
        batches.add(span)
        added += 1
    batches.add(span)
    assert batches.ready
    first = batches.take()
    assert (first.spans, len(spans_in(b"".join(first.pieces)))) == (added, added)
    assert MOST_BATCH <= first.size == sum(map(len, first.pieces)) < 1024 * 1024
    assert not batches.ready
    batches.complete()
    assert [batches.take().spans, batches.ready, batches.waiting] == [1, False, 0]


def test_the_oldest_are_dropped() -> None:
    """Not more than the bound waits; what is lost is counted."""
    lost: list[int] = []
    batches = Batches(lambda: None, lost.append)
    span = b"x" * 1000
    number = 2 * MOST_WAITING // len(span)
    for _ in range(number):
        batches.add(span)
    batches.complete()
    assert batches.waiting <= MOST_WAITING
    kept = 0
    while batches.ready:
        kept += batches.take().spans
    assert kept + sum(lost) == number
    assert kept * len(span) > MOST_WAITING - 1.1 * MOST_BATCH  # they are dropped by batches
