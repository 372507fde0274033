"""Which exchanges are recorded, and which spans they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.collector import spans_in, values
from support.routed import Routed

from apigw.config.errors import ConfigError
from apigw.contract.exchange import Exchange
from apigw.errors import Forbidden, UpstreamTimeout
from apigw.policy.tracing.policy import PreparedTracing
from apigw.policy.tracing.rules import collector_headers
from apigw.policy.tracing.stage import Epoch

TRACE, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
PARENT = (b"traceparent", b"00-" + TRACE + b"-" + SPAN + b"-01")
UNSAMPLED = (b"traceparent", b"00-" + TRACE + b"-" + SPAN + b"-00")
ROUTE = {"path": "/orders/:id", "service": "main"}


def traced(directory: Path, *, trusted_proxies: tuple[str, ...] = (), **tracing: Any) -> Routed:
    section = {"otlp": "http://collector.example:4318", **tracing}
    return Routed(directory, ROUTE, tracing=section, gateway={"trusted_proxies": list(trusted_proxies)})


def spans(made: Routed, exchange: Exchange) -> list[Span]:
    """What the end of an exchange leaves."""
    for each in exchange.at_end:
        each.run(exchange)
    batches = cast(PreparedTracing, made.snapshot.prepared["tracing"]).exporter.batches
    batches.complete()
    return spans_in(b"".join(batches.take().pieces)) if batches.ready else []


def test_a_new_trace(tmp_path: Path) -> None:
    """It has the digits of the request id; not those that a client has chosen."""
    made = traced(tmp_path, sample="100%")
    exchange = made.exchange("/orders/7")
    made.walked(exchange)
    assert exchange.trace_id == exchange.id
    (span,) = spans(made, exchange)
    assert (span.trace_id.hex(), span.parent_span_id) == (exchange.id.decode(), b"")
    assert span.span_id == span.trace_id[:7] + b"\0"
    of_client = made.exchange("/orders/7", (b"x-request-id", TRACE))
    made.walked(of_client)
    assert of_client.id == TRACE
    assert of_client.trace_id != TRACE
    assert len(of_client.trace_id) == 32


@pytest.mark.parametrize(
    ("headers", "sample", "recorded"),
    [
        ((), "100%", True),
        ((), "0%", False),
        ((PARENT,), "0%", True),
        ((UNSAMPLED,), "100%", False),
        (((b"traceparent", b"00-broken"), (b"tracestate", b"a=1")), "100%", True),
        (((b"b3", b"1"),), "0%", True),
        (((b"b3", b"0"),), "100%", False),
        (((b"b3", TRACE + b"-" + SPAN),), "100%", True),
        (((b"b3", TRACE + b"-" + SPAN),), "0%", False),
    ],
)
def test_who_decides(tmp_path: Path, headers: tuple[Any, ...], sample: str, recorded: bool) -> None:
    """The parent, if it has decided; else the share of traces."""
    made = traced(tmp_path, sample=sample, propagate=["w3c", "b3"])
    exchange = made.exchange("/orders/7", *headers)
    fields = dict(made.sent(exchange))
    assert (exchange.trace is not None) is recorded
    assert bool(exchange.at_end) is recorded
    if not recorded:
        assert fields[b"traceparent"].startswith(b"00-" + exchange.trace_id)
        assert fields[b"traceparent"].endswith(b"-00")
        assert fields[b"b3"].endswith(b"-0")
    assert fields.get(b"tracestate") is None


def test_a_trace_that_is_not_recorded(tmp_path: Path) -> None:
    """The service gets the headers of the client as they were, once, and no others of traces."""
    made = traced(tmp_path)
    sent = made.sent(made.exchange("/orders/7", UNSAMPLED, (b"tracestate", b"a=1")))
    assert [each for each in sent if each[0].startswith(b"trace")] == [UNSAMPLED, (b"tracestate", b"a=1")]


def test_whom_is_trusted(tmp_path: Path) -> None:
    """With trust: trusted_proxies, others begin a new trace."""
    for proxies, goes_on in (((), False), (("192.0.2.0/24",), True)):
        made = traced(tmp_path, trust="trusted_proxies", trusted_proxies=proxies, sample="0%")
        exchange = made.exchange("/orders/7", PARENT)
        made.walked(exchange)
        assert (exchange.trace is not None, exchange.trace_id == TRACE) == (goes_on, goes_on)


def test_an_exchange_with_tries(tmp_path: Path) -> None:
    """Its span, and one for each try, which the service that was tried has got the id of."""
    made = traced(tmp_path)
    exchange = made.exchange("/orders/7?x=1", PARENT, (b"user-agent", b"curl/8"))
    made.walked(exchange)
    trace = exchange.trace
    assert trace is not None
    trace.unconnected("http://10.0.0.1:80", "main", 0.0, 0.25)
    first: list[tuple[bytes, bytes]] = []
    trace.begin("http://10.0.0.2:80", "main", 0.25, first)
    trace.end(0.5, b"HTTP/1.1")
    trace.answered(503)
    second: list[tuple[bytes, bytes]] = []
    trace.begin("http://10.0.0.3:80", "main", 0.5, second)
    trace.end(0.75, b"HTTP/1.1")
    trace.answered(200)
    exchange.status = 200
    own, *tries = spans(made, exchange)
    assert (own.name, own.parent_span_id.hex()) == ("GET /orders/:id", SPAN.decode())
    assert {span.trace_id.hex() for span in (own, *tries)} == {TRACE.decode()}
    assert {span.parent_span_id for span in tries} == {own.span_id}
    assert [dict(first)[b"traceparent"], dict(second)[b"traceparent"]] == [
        b"00-" + TRACE + b"-" + span.span_id.hex().encode() + b"-01" for span in tries[1:]
    ]
    told = [values(span.attributes) for span in tries]
    assert [each.get("error.type") for each in told] == ["connect", "503", None]
    assert [each.get("http.request.resend_count") for each in told] == [None, 1, 2]
    assert [each["url.full"] for each in told] == [f"http://10.0.0.{n}:80/orders/7?x=1" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("asked", "sent", "shown"),
    [
        ("/orders/7?token=s3cr3t&y=1", None, ("/orders/7", "token=***&y=1", "/orders/7?token=***&y=1")),
        ("/orders/7;jsessionid=s3cr3t", None, ("/orders/7;jsessionid=***", None, "/orders/7;jsessionid=***")),
        ("/orders/7?", None, ("/orders/7", None, "/orders/7?")),
        ("/orders/7", b"/v2/7?key=s3cr3t", ("/orders/7", None, "/v2/7?key=***")),
        ("/orders/7?key=s3cr3t", b"/v2/7;jsessionid=s3cr3t", ("/orders/7", "key=***", "/v2/7;jsessionid=***")),
    ],
)
def test_secrets(tmp_path: Path, asked: str, sent: bytes | None, shown: tuple[str, str | None, str]) -> None:
    """Values of secrets in what the client asked for, and in what the service was sent, are hidden."""
    made = traced(tmp_path, sample="100%")
    exchange = made.exchange(asked)
    made.walked(exchange)
    assert exchange.trace is not None
    exchange.target = exchange.request.uri if sent is None else sent
    exchange.trace.begin("http://10.0.0.1:80", "main", 0.0, [])
    own, tried = (values(span.attributes) for span in spans(made, exchange))
    url = "http://10.0.0.1:80" + shown[2]
    assert (own["url.path"], own.get("url.query"), tried["url.full"]) == (*shown[:2], url)


@pytest.mark.parametrize(
    ("status", "refusal", "told"),
    [
        (200, None, (200, None, 0)),
        (404, None, (404, None, 0)),
        (500, None, (500, "500", 2)),
        (403, Forbidden(""), (403, None, 0)),
        (504, UpstreamTimeout(""), (504, "upstream_timeout", 2)),
        (200, UpstreamTimeout(""), (200, "upstream_timeout", 2)),
        (499, None, (None, "client_left", 2)),
    ],
)
def test_what_counts_as_a_failure(
    tmp_path: Path, status: int, refusal: Any, told: tuple[int | None, str | None, int]
) -> None:
    """Statuses from 500, answers that broke off, clients that left; not what is the client's fault."""
    made = traced(tmp_path, sample="100%")
    exchange = made.exchange("/orders/7")
    made.walked(exchange)
    exchange.status, exchange.refusal = status, refusal
    (span,) = spans(made, exchange)
    found = values(span.attributes)
    assert (found.get("http.response.status_code"), found.get("error.type"), span.status.code) == told


def test_unix_time() -> None:
    """A system's clock that is set is noticed within a second."""
    clocks = {"seconds": 10.0, "now": 1000.0}
    epoch = Epoch(lambda: clocks["seconds"], lambda: clocks["now"])
    assert epoch.at(10.0) == 990.0
    clocks.update(seconds=10.9, now=5000.9)
    assert epoch.at(10.9) == 990.0
    clocks.update(seconds=11.0, now=5001.0)
    assert epoch.at(11.0) == 4990.0


def test_requests_that_match_no_route(tmp_path: Path) -> None:
    """They are recorded, too, under their method alone."""
    made = traced(tmp_path, sample="100%")
    exchange = made.exchange("/elsewhere")
    exchange.route.stages[0].run(exchange)
    exchange.status = 404
    (span,) = spans(made, exchange)
    assert span.name == "GET"


def test_without_tracing(tmp_path: Path) -> None:
    """Routes have no stage for it, and the client's headers go on as they are."""
    made = Routed(tmp_path, ROUTE)
    exchange = made.exchange("/orders/7", PARENT, (b"b3", b"1"))
    sent = made.sent(exchange)
    assert (exchange.trace_id, exchange.trace) == (b"", None)
    assert [each for each in sent if each in (PARENT, (b"b3", b"1"))] == [PARENT, (b"b3", b"1")]
    assert "access" not in made.snapshot.prepared["tracing"].unmatched().stages


@pytest.mark.parametrize(
    ("tracing", "problem"),
    [
        ({"otlp": "collector:4318"}, "otlp"),
        ({"sample": "1%"}, "otlp"),
        ({"otlp": "http://c", "sample": "101%"}, "sample"),
        ({"otlp": "http://c", "propagate": []}, "propagate"),
        ({"otlp": "http://c", "propagate": ["b33"]}, "is not one of w3c, b3, b3_multi; did you mean"),
        ({"otlp": "http://c", "propagate": ["w3c", "w3c"]}, "given twice"),
        ({"otlp": "http://c", "trust": "nobody"}, "trust"),
        ({"otlp": "http://c", "headers_file": "missing"}, "does not exist"),
    ],
)
def test_bad_configurations(tmp_path: Path, tracing: dict[str, Any], problem: str) -> None:
    """Each is refused, in words."""
    with pytest.raises(ConfigError) as raised:
        Routed(tmp_path, ROUTE, tracing=tracing)
    assert problem in str(raised.value)


@pytest.mark.parametrize("content", [b"no colon", b"a b: c", b"Host: x", b"X: a\x00b", b"\xff: x"])
def test_bad_headers_for_the_collector(content: bytes) -> None:
    """A file with something else than headers is refused without a word of it."""
    with pytest.raises(ValueError, match="in line 2") as raised:
        collector_headers(b"X-Key: secret\n" + content + b"\n")
    assert "secret" not in str(raised.value)
