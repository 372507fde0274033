"""Traces as a service and a collector see them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from support.client import Client
from support.collector import Collector, rotel, values
from support.daemon import Daemon, Document, gateway
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"traceparent: 00-{TRACE}-{SPAN}-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.log"


@pytest.fixture(scope="module")
def document(module_service: Service, collector: Collector, log: Path) -> Document:
    services = {
        "main": module_service.url,
        "retried": {"targets": [module_service.url], "retry": {"on": [503], "tries": 2}},
        "gone": "http://127.0.0.1:1",
    }
    routes = [{"path": f"/{name}/:id", "service": name} for name in services]
    made = gateway(services=services, routes=routes, access_log={"file": str(log)})
    return {**made, "tracing": {"otlp": collector.url, "sample": "100%", "propagate": ["w3c", "b3"]}}


@pytest.fixture(scope="module")
def daemon(in_front: Start, document: Document) -> Daemon:
    return in_front(document)


def spans(collector: Collector, number: int, name: str) -> list[Span]:
    """Those of the trace whose own span is named so, when there are so many."""

    def trace() -> list[Span]:
        own = [span for span in collector.spans if span.name == name and span.kind == Span.SPAN_KIND_SERVER]
        return [span for span in collector.spans if own and span.trace_id == own[-1].trace_id]

    eventually(lambda: len(trace()) >= number)
    found = sorted(trace(), key=lambda span: (span.kind, span.start_time_unix_nano))
    assert len(found) == number
    return found


def test_a_request(daemon: Daemon, service: Service, collector: Collector, log: Path) -> None:
    """The client's trace goes on: in the service's headers, at the collector, in the access log, in an exemplar."""
    assert daemon.get("/main/7?x=1", PARENT, "tracestate: a=1", "b3: 0").status == 200
    (received,) = service.requests
    own, tried = spans(collector, 2, "GET /main/:id")
    assert (own.trace_id.hex(), own.parent_span_id.hex(), own.trace_state) == (TRACE, SPAN, "a=1")
    assert tried.parent_span_id == own.span_id
    assert received.get("traceparent") == f"00-{TRACE}-{tried.span_id.hex()}-01"
    assert received.get("tracestate") == "a=1"
    assert received.get("b3") == f"{TRACE}-{tried.span_id.hex()}-1-{own.span_id.hex()}"
    assert own.start_time_unix_nano <= tried.start_time_unix_nano <= tried.end_time_unix_nano <= own.end_time_unix_nano
    assert values(own.attributes)["http.response.status_code"] == 200
    assert values(tried.attributes)["url.full"] == f"{service.url}/main/7?x=1"
    assert collector.requests[0][0] == "/v1/traces"
    eventually(lambda: log.exists() and TRACE in log.read_text())
    assert json.loads(log.read_text().splitlines()[-1])["trace_id"] == TRACE
    with Client(daemon.admin) as client:
        text = client.get("/metrics", "Accept: application/openmetrics-text").body.decode()
        lines = [line for line in text.splitlines() if f'# {{trace_id="{TRACE}"}}' in line]
        assert [line.partition("_bucket")[0] for line in lines] == [
            "gateway_request_duration_seconds",
            "gateway_upstream_duration_seconds",
        ]
        assert TRACE not in client.get("/metrics").body.decode()


def test_tries(daemon: Daemon, service: Service, collector: Collector) -> None:
    """Each has a span, and the service gets its id; one that no connection could be made for has one, too."""
    statuses = [503, 200]

    def behave(received: Received) -> None:
        received.conversation.answer(statuses.pop(0))

    service.behave = behave
    assert daemon.get("/retried/1").status == 200
    own, first, second = spans(collector, 3, "GET /retried/:id")
    told = [values(span.attributes) for span in (own, first, second)]
    assert [each["http.response.status_code"] for each in told] == [200, 503, 200]
    assert [each.get("http.request.resend_count") for each in told] == [None, None, 1]
    sent = [received.get("traceparent") for received in service.requests]
    assert sent == [f"00-{own.trace_id.hex()}-{span.span_id.hex()}-01" for span in (first, second)]
    assert daemon.get("/gone/1").status == 502
    own, tried = spans(collector, 2, "GET /gone/:id")
    assert values(own.attributes)["error.type"] == "upstream_unreachable"
    assert values(tried.attributes)["error.type"] == "connect"


def test_what_nobody_sees(daemon: Daemon, service: Service, collector: Collector) -> None:
    """A request without a route has a span; the gateway's own paths have none, nor has what is not sampled."""
    assert daemon.get("/health").status == 200
    assert daemon.get("/main/1", PARENT.replace("-01", "-00")).status == 200
    assert service.requests[-1].get("traceparent") == PARENT.replace("-01", "-00").removeprefix("traceparent: ")
    assert daemon.get("/nowhere").status == 404
    (own,) = spans(collector, 1, "GET")
    assert values(own.attributes)["http.response.status_code"] == 404
    assert not [span for span in collector.spans if values(span.attributes).get("url.path") == "/health"]


def test_collectors_come_and_go(daemon: Daemon, document: Document, service: Service, collector: Collector) -> None:
    """While it is dead requests are answered. A reload names another, or none: then headers of traces stay as they
    are."""
    dead = {**document, "tracing": {**document["tracing"], "otlp": "http://127.0.0.1:1"}}
    assert daemon.reload(dead)
    for _ in range(20):
        assert daemon.get("/main/2").status == 200
    eventually(lambda: "tracing: spans wait, the collector cannot be reached" in daemon.log)
    before = len(collector.spans)
    assert daemon.reload(document)
    eventually(lambda: len(collector.spans) == before + 40)
    assert daemon.reload({name: section for name, section in document.items() if name != "tracing"})
    assert daemon.get("/main/3", PARENT).status == 200
    assert service.requests[-1].get("traceparent") == PARENT.removeprefix("traceparent: ")
    with Client(daemon.admin) as client:
        text = client.get("/metrics").body.decode()
    assert 'gateway_trace_spans_total{result="dropped"} 0.0' in text


@pytest.mark.skipif(find_spec("rotel") is None, reason="rotel has no wheel for this Python")
def test_a_real_collector_understands_them(
    daemon: Daemon, document: Document, collector: Collector, tmp_path: Path
) -> None:
    """Rotel, which is written in Rust, reads what the gateway sends, and says the same in its own words."""
    collector.bodies.clear()
    with rotel(tmp_path, collector.url) as url:
        assert daemon.reload({**document, "tracing": {**document["tracing"], "otlp": url}})
        assert daemon.get("/gone/2", PARENT, "tracestate: a=1").status == 502
        own, tried = spans(collector, 2, "GET /gone/:id")
    assert (own.trace_id.hex(), own.parent_span_id.hex(), own.trace_state) == (TRACE, SPAN, "a=1")
    assert (tried.trace_id, tried.parent_span_id) == (own.trace_id, own.span_id)
    assert own.start_time_unix_nano <= tried.start_time_unix_nano <= tried.end_time_unix_nano <= own.end_time_unix_nano
    assert values(own.attributes)["http.response.status_code"] == 502
    assert values(own.attributes)["error.type"] == "upstream_unreachable"
    assert values(tried.attributes)["server.port"] == 1
    assert (own.status.code, tried.status.code) == (Status.STATUS_CODE_ERROR, Status.STATUS_CODE_ERROR)
