"""What ``/metrics`` says after known traffic, and that saying it does not disturb the traffic."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client import parser as plain_parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from apigw.ops.exposition import Exposition, Kept, Page, prefers_openmetrics
from apigw.ops.measured import Certificates, Pools
from apigw.ops.metrics import Lag, Metrics
from apigw.ops.series import BUCKETS, RouteSeries, Spread
from apigw.wire.deadlines import Deadlines

Parse = Callable[[str], Iterable[Metric]]
parse_plain: Parse = plain_parser.text_string_to_metric_families
parse_openmetrics: Parse = openmetrics_parser.text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

FAMILIES = {
    "gateway_requests": ("counter", {"method", "path", "route", "status"}),
    "gateway_request_duration_seconds": ("histogram", {"method", "path", "route"}),
    "gateway_upstream_duration_seconds": ("histogram", {"service"}),
    "gateway_upstream_errors": ("counter", {"service", "kind"}),
    "gateway_upstream_retries": ("counter", {"service", "reason"}),
    "gateway_upstream_retries_denied": ("counter", {"service"}),
    "gateway_grpc_calls": ("counter", {"service", "grpc_status"}),
    "gateway_circuit_breaker_state": ("gauge", {"service"}),
    "gateway_circuit_breaker_transitions": ("counter", {"service", "to"}),
    "gateway_upstream_ejections": ("counter", {"service"}),
    "gateway_target_up": ("gauge", {"service", "target"}),
    "gateway_requests_in_flight": ("gauge", set()),
    "gateway_connections": ("gauge", {"protocol"}),
    "gateway_connections_refused": ("counter", {"reason"}),
    "gateway_config_reloads": ("counter", {"result"}),
    "gateway_config_last_reload_successful": ("gauge", set()),
    "gateway_upgrades": ("counter", {"result"}),
    "gateway_requests_shed": ("counter", {"reason"}),
    "gateway_dns_lookups": ("counter", {"result"}),
    "gateway_dns_lookup_duration_seconds": ("histogram", set()),
    "gateway_dns_lookups_in_progress": ("gauge", set()),
    "gateway_dns_old_answers": ("counter", set()),
    "gateway_body_bytes": ("counter", {"direction"}),
    "gateway_buffered_bytes": ("gauge", set()),
    "gateway_log_lines_lost": ("counter", {"log"}),
    "gateway_reactor_lag_seconds": ("histogram", set()),
    "gateway_build_info": ("gauge", {"version"}),
}


def fresh() -> Metrics:
    return Metrics(CollectorRegistry(), "1.2.3")


def samples(metrics: Metrics) -> Samples:
    text = metrics.render()[1].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_plain(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    labels |= {"route": labels["path"]} if "path" in labels else {}
    return found.get((name, frozenset(labels.items())))


def busy() -> Metrics:
    """Metrics in which every family has something."""
    metrics = fresh()
    metrics.route("/api/users/:id").observe(b"GET", 200, 0.02)
    service = metrics.service("users")
    service.observe(0.01)
    service.error("connect")
    service.called(0)
    service.circuit("open")
    service.target_is("http://10.0.0.1", True)
    metrics.connections("h2").inc()
    metrics.reactor_lag(0.0)
    return metrics


@pytest.mark.parametrize("openmetrics", [False, True])
def test_every_family_has_its_name_type_and_labels(openmetrics: bool) -> None:
    """A dashboard that names a family or a label of the reference finds it, in both formats."""
    text = busy().render(openmetrics)[1].decode()
    parse = parse_openmetrics if openmetrics else parse_plain
    found = {family.name: family for family in parse(text)}
    for name, (kind, labels) in FAMILIES.items():
        assert found[name].type == kind
        assert found[name].documentation
        assert {label for sample in found[name].samples for label in sample.labels} - {"le"} == labels
    assert {name for name in found if name.startswith("gateway_")} == set(FAMILIES)
    assert "process_cpu_seconds" in found
    assert "_created" not in text


def test_formats_name_themselves() -> None:
    """Prometheus refuses a page whose content type it does not know, and OpenMetrics without its end."""
    kind, text = busy().render(False)
    assert kind == b"text/plain; version=0.0.4; charset=utf-8"
    assert b"# EOF" not in text
    kind, text = busy().render(True)
    assert kind == b"application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert text.endswith(b"\n# EOF\n")
    assert text.count(b"# EOF") == 1


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_nothing_to_complain_about() -> None:
    """The names and help texts follow Prometheus' own rules."""
    text = busy().render()[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr + done.stdout) == (0, b"")


def test_exchanges_are_counted_exactly() -> None:
    """The counts of a known mixture of answers are these, to the number."""
    metrics = fresh()
    route = metrics.route("/api/orders")
    for status, times in {200: 5, 401: 4, 404: 3, 429: 2, 503: 1, 499: 6}.items():
        for _ in range(times):
            route.observe(b"GET", status, 0.25)
    route.observe("GET", 200, 0.75)
    route.observe(b"POST", 201, 12.0)
    found = samples(metrics)
    counts = {status: value(found, "gateway_requests_total", method="GET", path="/api/orders", status=str(status))
              for status in (200, 401, 404, 429, 503, 499)}  # fmt: skip
    assert counts == {200: 6, 401: 4, 404: 3, 429: 2, 503: 1, 499: 6}
    assert value(found, "gateway_requests_total", method="POST", path="/api/orders", status="201") == 1
    duration = "gateway_request_duration_seconds"
    assert value(found, f"{duration}_count", method="GET", path="/api/orders") == 22
    assert value(found, f"{duration}_sum", method="GET", path="/api/orders") == 21 * 0.25 + 0.75
    assert value(found, f"{duration}_bucket", method="GET", path="/api/orders", le="0.1") == 0
    assert value(found, f"{duration}_bucket", method="GET", path="/api/orders", le="0.25") == 21
    assert value(found, f"{duration}_bucket", method="GET", path="/api/orders", le="+Inf") == 22


def test_exemplars() -> None:
    """Each bucket keeps a recorded request for a second: then, or when the clock was set back, another replaces it."""
    spread = Spread()
    spread.observe(0.2)
    shown = []
    for trace_id, ended in ((b"a", 100.0), (b"b", 100.9), (b"c", 101.0), (b"d", 50.0)):
        spread.observe(0.2, trace_id, ended)
        shown.append([each.trace_id for each in spread.exemplars if each is not None])
    assert shown == [[b"a"], [b"a"], [b"c"], [b"d"]]
    spread.observe(7.0, b"slow", 50.1)
    (_, slow) = [each for each in spread.exemplars if each is not None]
    assert (slow.trace_id, slow.took, slow.ended) == (b"slow", 7.0, 50.1)


def test_the_promised_bounds_are_there() -> None:
    """The latency objectives of 50, 100 and 500 ms can be read off without interpolation."""
    assert {0.05, 0.1, 0.5} <= set(BUCKETS)
    assert (BUCKETS[0], BUCKETS[-1]) == (0.001, 30.0)
    assert list(BUCKETS) == sorted(BUCKETS)


def test_tunnels_stay_out_of_the_durations() -> None:
    """A WebSocket that lives for an hour does not spoil the percentiles, but is counted."""
    metrics = fresh()
    metrics.route("/ws").observe(b"GET", 101, None)
    found = samples(metrics)
    assert value(found, "gateway_requests_total", method="GET", path="/ws", status="101") == 1
    assert value(found, "gateway_request_duration_seconds_count", method="GET", path="/ws") == 0


@given(st.lists(st.tuples(st.binary(max_size=8) | st.text(max_size=8), st.integers(-5, 1000)), max_size=200))
def test_clients_cannot_make_series(sent: list[tuple[bytes | str, int]]) -> None:
    """Whoever invents methods, or a service that invents statuses, does not grow the scrape."""
    route = RouteSeries()
    for method, status in sent:
        route.observe(method, status, 0.0)
    known = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER"}
    assert set(route.methods) <= known
    assert all(100 <= status <= 599 for series in route.methods.values() for status in series.statuses)
    assert sum(sum(series.statuses.values()) for series in route.methods.values()) == len(sent)
    assert len(route._known) <= 2 * len(known)


def test_strange_methods_are_other() -> None:
    """Lower case is another method (RFC 9110 §9.1), and is not counted as GET."""
    metrics = fresh()
    for method in (b"get", b"PROPFIND", b"\xff", "TRACE"):
        metrics.route("unmatched").observe(method, 501, 0.0)
    assert value(samples(metrics), "gateway_requests_total", method="OTHER", path="unmatched", status="501") == 4


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_pattern_can_be_a_label(pattern: str) -> None:
    """A quote, a percent sign or a line break in the configuration does not break the scrape."""
    metrics = fresh()
    metrics.route(pattern).observe(b"GET", 200, 0.0)
    text = metrics.render(True)[1].decode()
    paths = {s.labels["path"] for family in parse_openmetrics(text) for s in family.samples if "path" in s.labels}
    assert paths == {pattern}


def test_zero_is_there_before_the_first_event() -> None:
    """``rate()`` sees the first transition and reload, because the series began at zero."""
    metrics = fresh()
    metrics.service("users")
    found = samples(metrics)
    assert value(found, "gateway_circuit_breaker_state", service="users") == 0
    for to in ("closed", "open", "half-open"):
        assert value(found, "gateway_circuit_breaker_transitions_total", service="users", to=to) == 0
    for result in ("success", "failure"):
        assert value(found, "gateway_config_reloads_total", result=result) == 0
    assert value(found, "gateway_upstream_duration_seconds_count", service="users") == 0


def test_the_circuit_shows_its_state_and_counts_its_changes() -> None:
    """The panel of circuits shows open as 1, half-open as 2, and closed again as 0."""
    metrics = fresh()
    service = metrics.service("users")
    for state, number in (("open", 1), ("half-open", 2), ("open", 1), ("half-open", 2), ("closed", 0)):
        service.circuit(state)
        assert value(samples(metrics), "gateway_circuit_breaker_state", service="users") == number
    found = samples(metrics)
    seen = {to: value(found, "gateway_circuit_breaker_transitions_total", service="users", to=to)
            for to in ("closed", "open", "half-open")}  # fmt: skip
    assert seen == {"closed": 1, "open": 2, "half-open": 2}


def test_gauges_follow() -> None:
    """Requests in flight, connections and the last reload show what is, not what was."""
    metrics = fresh()
    metrics.in_flight += 2
    metrics.connections("h1").inc()
    metrics.connections("h1").inc()
    metrics.connections("h1").dec()
    metrics.reloaded(True)
    metrics.reloaded(False)
    found = samples(metrics)
    assert value(found, "gateway_requests_in_flight") == 2
    assert value(found, "gateway_connections", protocol="h1") == 1
    assert value(found, "gateway_config_last_reload_successful") == 0
    assert value(found, "gateway_config_reloads_total", result="success") == 1
    assert value(found, "gateway_config_reloads_total", result="failure") == 1
    metrics.reloaded(True)
    found = samples(metrics)
    assert value(found, "gateway_config_last_reload_successful") == 1
    assert value(found, "gateway_build_info", version="1.2.3") == 1


def test_what_a_reload_removes_goes_away() -> None:
    """Removed routes and services leave the scrape; the others keep their counts, reserved paths too."""
    metrics = fresh()
    for path in ("/old", "/kept", "/health", "unmatched"):
        metrics.route(path).observe(b"GET", 200, 0.1)
    for name in ("old", "kept"):
        service = metrics.service(name)
        service.observe(0.1)
        service.error("timeout")
        service.circuit("open")
        service.called(0)
        service.called(77)
    metrics.retain(routes={("/kept", "/kept")}, services=["kept"])

    found = samples(metrics)
    labels = [dict(pairs) for _, pairs in found]
    assert {pairs["path"] for pairs in labels if "path" in pairs} == {"/kept", "/health", "unmatched"}
    assert {pairs["service"] for pairs in labels if "service" in pairs} == {"kept"}
    assert value(found, "gateway_requests_total", method="GET", path="/kept", status="200") == 1
    assert value(found, "gateway_upstream_errors_total", service="kept", kind="timeout") == 1
    assert value(found, "gateway_upstream_duration_seconds_count", service="kept") == 1
    assert value(found, "gateway_circuit_breaker_state", service="kept") == 1
    assert value(found, "gateway_grpc_calls_total", service="kept", grpc_status="0") == 1
    assert value(found, "gateway_grpc_calls_total", service="kept", grpc_status="2") == 1

    metrics.service("old").error("timeout")
    assert value(samples(metrics), "gateway_upstream_errors_total", service="old", kind="timeout") == 1


def test_counting_goes_on_while_a_page_is_written() -> None:
    """Whatever is counted, added or removed between two stretches of a rendering, its page is well-formed."""
    metrics = fresh()
    for number in range(200):
        metrics.route(f"/r{number}").observe(b"GET", 200, 0.1)
    turns = 0

    def interfere() -> None:
        nonlocal turns
        turns += 1
        for number in range(200):
            route = metrics.route(f"/r{number}")
            route.observe(b"GET", 100 + turns, 0.2)
            route.observe([b"PUT", b"HEAD", b"POST"][turns % 3], 200, 0.2)
        metrics.route(f"/new{turns}").observe(b"GET", 200, 0.1)
        metrics.service(f"new{turns}").error("connect")
        metrics.retain([(f"/r{number}", f"/r{number}") for number in range(turns, 200)], [f"new{turns}"])

    page = metrics.render(True, interfere)[1].decode()
    assert turns > 5
    families = list(parse_openmetrics(page))
    assert "gateway_requests" in {family.name for family in families}


def test_a_page_written_in_a_thread_agrees_with_itself() -> None:
    """However threads take turns, a histogram's count is that of its last bucket and no count goes back."""
    metrics = fresh()
    route = metrics.route("/busy")
    done = threading.Event()
    pages: list[str] = []

    def write_pages() -> None:
        for _ in range(20):
            pages.append(metrics.render(True, lambda: None)[1].decode())
        done.set()

    thread = threading.Thread(target=write_pages)
    thread.start()
    counted = 0
    while not done.is_set():
        route.observe(b"GET", 200 + counted % 300, 0.001 * (counted % 50))
        counted += 1
    thread.join()
    pages.append(metrics.render(True)[1].decode())

    totals = []
    for page in pages:
        families = {family.name: family.samples for family in parse_openmetrics(page)}
        totals.append(sum(sample.value for sample in families["gateway_requests"]))
    assert totals == sorted(totals)
    assert totals[-1] == counted


def test_lag_is_what_the_reactor_was_late() -> None:
    """A callback that blocks for 400 ms shows as a lag of 400 ms, to everyone who asked."""
    clock = Clock()
    lags: list[float] = []
    others: list[float] = []
    lag, deadlines = Lag(lags.append, others.append), Deadlines(clock, tick=0.5)
    deadlines.observe_lag = lag.observe
    deadlines.start()
    clock.advance(0.5)
    clock.advance(0.9)
    clock.advance(0.5)
    assert lags == others == pytest.approx([0.0, 0.4, 0.0])
    assert lag.worst == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (None, False),
        (b"", False),
        (b"*/*", False),
        (b"text/html,application/xhtml+xml,*/*;q=0.8", False),
        (b"application/openmetrics-text", True),
        (b"Application/OpenMetrics-Text; version=1.0.0", True),
        (b"application/openmetrics-text;q=0", False),
        (b"application/openmetrics-text;q=0.4,text/plain;q=0.5", False),
        (b"application/openmetrics-text;q=nonsense", False),
        (b"application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        (
            b"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            b"application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.1",
            True,
        ),
    ],
)
def test_the_format_that_was_asked_for(accept: bytes | None, openmetrics: bool) -> None:
    """Prometheus, old and new, gets OpenMetrics; people with curl or a browser get plain text."""
    assert prefers_openmetrics(accept) is openmetrics


OPENMETRICS = b"application/openmetrics-text"


class Pool:
    """A thread pool whose work is done when the test says so."""

    def __init__(self) -> None:
        self.work: list[tuple[Deferred[Page], bool]] = []

    def __call__(self, openmetrics: bool) -> Deferred[Page]:
        page: Deferred[Page] = Deferred()
        self.work.append((page, openmetrics))
        return page

    def finish(self, text: bytes) -> None:
        self.work.pop(0)[0].callback((b"text/plain", text))


def exposition() -> tuple[Exposition, Clock, Pool]:
    clock, pool = Clock(), Pool()
    return Exposition(pool, clock), clock, pool


def texts(*pages: Deferred[Page]) -> list[bytes]:
    found: list[bytes] = []
    for page in pages:
        page.addCallback(lambda page: found.append(page[1]))
    return found


def failure_of(page: Deferred[Page]) -> Failure:
    found: list[Failure] = []
    page.addErrback(lambda failure: found.append(failure))
    return found[0]


def test_many_who_ask_cost_one_rendering() -> None:
    """Ten scrapers, or an attacker with a loop, cause one rendering a second and format."""
    exposed, clock, pool = exposition()
    asked = [exposed.page() for _ in range(10)]
    assert len(pool.work) == 1
    pool.finish(b"one")
    assert texts(*asked, exposed.page()) == [b"one"] * 11
    clock.advance(0.99)
    assert texts(exposed.page()) == [b"one"]
    clock.advance(0.02)
    again = exposed.page()
    pool.finish(b"two")
    assert texts(again) == [b"two"]


def test_a_page_is_as_old_as_its_beginning() -> None:
    """A rendering that took long is not handed out as if it were new."""
    exposed, clock, pool = exposition()
    first = exposed.page()
    clock.advance(1.5)
    pool.finish(b"slow")
    assert texts(first) == [b"slow"]
    exposed.page()
    assert len(pool.work) == 1


def test_formats_are_kept_apart_and_rendered_one_after_the_other() -> None:
    """Whoever asked for plain text never gets OpenMetrics, and two formats do not take two threads."""
    exposed, _, pool = exposition()
    plain, openmetrics = exposed.page(), exposed.page(OPENMETRICS)
    assert [wanted for _, wanted in pool.work] == [False]
    pool.finish(b"plain")
    assert [wanted for _, wanted in pool.work] == [True]
    pool.finish(b"open")
    assert texts(plain, openmetrics, exposed.page(), exposed.page(OPENMETRICS)) == [b"plain", b"open"] * 2


def test_a_scraper_that_leaves_takes_nobody_with_it() -> None:
    """A cancelled scrape neither fails the others nor starts a second rendering beside the first."""
    exposed, _, pool = exposition()
    leaves, stays = exposed.page(), exposed.page()
    leaves.cancel()
    assert isinstance(failure_of(leaves).value, CancelledError)
    later = exposed.page()
    assert len(pool.work) == 1
    pool.finish(b"one")
    assert texts(stays, later) == [b"one"] * 2


def test_a_failed_rendering_is_not_kept() -> None:
    """One that fails is told to those who waited, and the next who asks gets a new one."""
    exposed, _, pool = exposition()
    asked = exposed.page()
    pool.work.pop(0)[0].errback(ZeroDivisionError())
    assert isinstance(failure_of(asked).value, ZeroDivisionError)
    again = exposed.page()
    pool.finish(b"better")
    assert texts(again) == [b"better"]


def test_what_is_kept_is_made_once_for_all_who_ask() -> None:
    """While it is made, and for a while; what failed is made anew."""
    clock, pool = Clock(), Pool()
    kept = Kept(lambda: pool(False), clock, 0.5)
    asked = [kept.get(), kept.get()]
    pool.work.pop(0)[0].errback(ZeroDivisionError())
    assert {failure_of(each).type for each in asked} == {ZeroDivisionError}
    asked = [kept.get(), kept.get()]
    clock.advance(0.3)
    pool.finish(b"one")
    clock.advance(0.1)
    assert texts(*asked, kept.get()) == [b"one"] * 3
    clock.advance(0.1)
    again = kept.get()
    pool.finish(b"two")
    assert texts(again) == [b"two"]


def test_what_is_there_at_a_scrape() -> None:
    """Bytes of bodies, connections to services, and ends of certificates are those of this moment."""
    metrics = fresh()
    metrics.bodies.received, metrics.bodies.sent = 3, 5
    pools, ends = [("users", 2, 1)], {"a.test": 1.8e9}
    metrics.registry.register(Pools(lambda: pools))
    metrics.registry.register(Certificates(lambda: ends))
    found = samples(metrics)
    assert value(found, "gateway_body_bytes_total", direction="in") == 3
    assert value(found, "gateway_body_bytes_total", direction="out") == 5
    assert value(found, "gateway_upstream_connections", service="users") == 2
    assert value(found, "gateway_upstream_waiting_requests", service="users") == 1
    assert found["gateway_certificate_expires_seconds", frozenset({("name", "a.test")})] == 1.8e9
    pools.clear()
    ends.clear()
    assert value(samples(metrics), "gateway_upstream_connections", service="users") is None
