"""``/metrics`` of several workers is one page, in which each number has the meaning that it has for the machine."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client import parser as plain_parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from support.limits import limit

from apigw.ops.measured import Certificates, Pools
from apigw.ops.metrics import Metrics
from apigw.ops.series import CIRCUIT_STATES
from apigw.ops.totals import BY_WORKER, GAUGES, SUMMED, gone, packed, page, worst
from apigw.policy.auth.series import AuthSeries
from apigw.policy.denials.series import DenialSeries
from apigw.policy.limits.series import Kept, LimitSeries

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Worker:
    """A worker's metrics, those of policies included."""

    def __init__(self, index: int, *routes: str) -> None:
        self.index = index
        self.metrics = Metrics(CollectorRegistry(), "1.2.3")
        self.limits = LimitSeries(self.metrics.registry)
        DenialSeries(self.metrics.registry, True)
        self.auth = AuthSeries(self.metrics.registry)
        self.configure("/a", *routes)

    def configure(self, *routes: str) -> None:
        for route in routes:
            self.metrics.route(route)
        self.metrics.service("users")
        self.limits.retain(Kept.of([limit(endpoint="", route=route) for route in routes]))

    def serve(self, path: str = "/a", status: int = 200, seconds: float = 0.02, times: int = 1) -> None:
        for _ in range(times):
            self.metrics.route(path).observe(b"GET", status, seconds)
            self.metrics.service("users").observe(seconds / 2)

    def says(self) -> str:
        return packed(self.metrics, self.index, lambda: None)


def parsed(text: bytes, openmetrics: bool = False) -> Samples:
    parse = openmetrics_parser if openmetrics else plain_parser
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse.text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def shown(workers: Iterable[Worker], *dead: str) -> Samples:
    return parsed(page([worker.says() for worker in workers], dead, False, lambda: None)[1])


def value(found: Samples, name: str, **labels: str) -> float | None:
    labels |= {"route": labels["path"]} if "path" in labels else {}
    return found.get((name, frozenset(labels.items())))


def test_counters_and_histograms_are_summed() -> None:
    """Requests are those of the machine, whoever of its workers served them."""
    one, other = Worker(0), Worker(1)
    one.serve(times=3)
    one.serve(status=503)
    other.serve(seconds=0.2, times=5)
    other.serve("/b", times=2)
    one.metrics.service("users").error("connect")
    other.metrics.service("users").error("connect")
    one.metrics.turned_away("full")
    other.metrics.lines_lost("access")(7)
    other.auth.failed("expired")
    found = shown([one, other])
    assert value(found, "gateway_requests_total", method="GET", path="/a", status="200") == 8
    assert value(found, "gateway_requests_total", method="GET", path="/a", status="503") == 1
    assert value(found, "gateway_requests_total", method="GET", path="/b", status="200") == 2
    duration = "gateway_request_duration_seconds"
    assert value(found, f"{duration}_bucket", method="GET", path="/a", le="0.025") == 4
    assert value(found, f"{duration}_count", method="GET", path="/a") == 9
    assert value(found, f"{duration}_sum", method="GET", path="/a") == pytest.approx(4 * 0.02 + 5 * 0.2)
    assert value(found, "gateway_upstream_duration_seconds_count", service="users") == 11
    assert value(found, "gateway_upstream_errors_total", service="users", kind="connect") == 2
    assert value(found, "gateway_connections_refused_total", reason="full") == 1
    assert value(found, "gateway_log_lines_lost_total", log="access") == 7
    assert value(found, "gateway_auth_failures_total", reason="expired") == 1


def test_gauges_go_by_their_meaning() -> None:
    """What is in flight is added up; what is up is up for all; a circuit is as bad as the worst."""
    one, other = Worker(0), Worker(1)
    for worker, number in ((one, 2), (other, 3)):
        worker.metrics.in_flight = worker.metrics.buffered = number
        worker.metrics.lookups.in_progress = number
    other.limits.store_up(False)
    one.metrics.service("users").circuit("open")
    other.metrics.service("users").circuit("half-open")
    one.metrics.reloaded(True)
    other.metrics.reloaded(True, counts=False)
    found = shown([one, other])
    for name in ("gateway_requests_in_flight", "gateway_buffered_bytes", "gateway_dns_lookups_in_progress"):
        assert value(found, name) == 5
    assert value(found, "gateway_rate_limit_store_up") == 0
    assert value(found, "gateway_circuit_breaker_state", service="users") == 1
    assert value(found, "gateway_build_info", version="1.2.3") == 1
    assert value(found, "gateway_config_last_reload_successful") == 1
    assert value(found, "gateway_config_reloads_total", result="success") == 1, "counted by one of them"
    other.metrics.reloaded(False)
    assert value(shown([one, other]), "gateway_config_last_reload_successful") == 0


@pytest.mark.parametrize(
    ("better", "worse"), [("closed", "open"), ("half-open", "open"), ("closed", "half-open"), ("open", "open")]
)
def test_the_worse_of_two_circuits(better: str, worse: str) -> None:
    """Open, then half-open, then closed, whoever is asked first."""
    one, other = CIRCUIT_STATES[better], CIRCUIT_STATES[worse]
    assert worst(one, other) == worst(other, one) == other


def test_each_worker_has_series_of_its_own() -> None:
    """Its CPU, memory, connections, lag, starts and deaths, by a label over which they can be added up."""
    one, other = Worker(0), Worker(1)
    one.metrics.connections("HTTP/2").set(4)
    other.metrics.connections("HTTP/2").set(6)
    other.metrics.reactor_lag(0.3)
    found = shown([one, other])
    assert value(found, "gateway_connections", protocol="HTTP/2", worker="0") == 4
    assert value(found, "gateway_connections", protocol="HTTP/2", worker="1") == 6
    assert value(found, "gateway_reactor_lag_seconds_count", worker="0") == 0
    assert value(found, "gateway_reactor_lag_seconds_count", worker="1") == 1
    for worker in ("0", "1"):
        assert value(found, "process_cpu_seconds_total", worker=worker) is not None
        assert value(found, "process_resident_memory_bytes", worker=worker) is not None
        assert value(found, "gateway_worker_starts_total", worker=worker) == 1
        assert value(found, "gateway_worker_deaths_total", worker=worker) == 0


def test_every_family_of_ours_has_its_rule() -> None:
    """Whoever adds a gauge decides what it means for the machine."""
    for family in Worker(0).metrics.registry.collect():
        if family.type not in SUMMED and family.name != "gateway_connections" and "process_" not in family.name:
            assert family.name in GAUGES
    registry = Worker(0).metrics.registry
    registry.register(Pools(list))
    registry.register(Certificates(dict))
    names = {family.name for family in registry.collect()}
    assert {*GAUGES, *BY_WORKER} <= names


@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_page_of_all_is_as_that_of_one(openmetrics: bool) -> None:
    """The same families, helps and types, in the same format; only series of one worker have a label more."""
    worker = Worker(0)
    worker.serve(times=3)
    worker.metrics.service("users").called(0)
    kind, own = worker.metrics.render(openmetrics, lambda: None)
    found_kind, text = page([worker.says()], (), openmetrics, lambda: None)
    assert found_kind == kind
    without = re.sub(rb',?worker="0"', b"", text).replace(b"{}", b"")

    def series(text: bytes) -> list[str]:
        # What the process used in between is another number.
        return [line.rpartition(" ")[0] if "process_" in line else line for line in text.decode().splitlines()]

    added = [line for line in series(without) if "gateway_worker_" not in line]
    assert added == series(own)
    assert parsed(text, openmetrics)


def test_counters_do_not_go_backwards_while_workers_are_replaced() -> None:
    """Worker 1 dies, and dies again; what it had counted stays, and what its successors count is added."""
    one, other = Worker(0), Worker(1)
    one.serve(times=2)
    other.serve(times=5)
    other.metrics.connections("HTTP/2").set(6)
    other.metrics.in_flight = 9
    other.metrics.reloaded(True)
    before = shown([one, other])
    total = gone(None, other.says(), 1)
    while_away = shown([one], total)
    successor = Worker(1)
    successor.serve(times=4)
    total = gone(total, successor.says(), 1)
    after = shown([one, Worker(1)], total)
    counters = {key: number for key, number in before.items() if key[0].endswith(("_total", "_bucket", "_count"))}
    for later in (while_away, after):
        assert all(later[key] >= number for key, number in counters.items() if key[0] != "process_cpu_seconds_total")
    assert value(after, "gateway_requests_total", method="GET", path="/a", status="200") == 11
    assert value(after, "gateway_config_reloads_total", result="success") == 1
    assert value(while_away, "gateway_requests_in_flight") == 0
    assert value(while_away, "gateway_connections", protocol="HTTP/2", worker="1") is None
    assert value(while_away, "gateway_worker_deaths_total", worker="1") == 1
    assert value(after, "gateway_worker_deaths_total", worker="1") == 2
    assert value(after, "gateway_worker_starts_total", worker="1") == 3


def test_a_worker_that_never_answered_has_started_and_died() -> None:
    """One that dies again and again before anybody asks is not invisible; one that left in order has not died."""
    total = gone(gone(None, None, 1), None, 1, died=False)
    found = shown([Worker(0)], total)
    assert value(found, "gateway_worker_starts_total", worker="1") == 2
    assert value(found, "gateway_worker_deaths_total", worker="1") == 1


def test_what_a_reload_removed_stays_away() -> None:
    """Series of removed routes, services and limits of workers that are gone are not shown, and others are."""
    dead = Worker(1, "/old")
    dead.serve("/old")
    dead.serve("/a", times=3)
    dead.metrics.service("old").error("timeout")
    dead.metrics.service("old").observe(0.1)
    dead.metrics.service("users").called(5)
    found = shown([Worker(0)], gone(None, dead.says(), 1))
    labels = [dict(pairs) for _, pairs in found]
    assert {each["path"] for each in labels if "path" in each} == {"/a"}
    assert {each["service"] for each in labels if "service" in each} == {"users"}
    assert {each["endpoint"] for each in labels if "endpoint" in each} == {"route /a"}
    assert value(found, "gateway_requests_total", method="GET", path="/a", status="200") == 3
    assert value(found, "gateway_grpc_calls_total", service="users", grpc_status="5") == 1


def test_what_a_plugin_calls_a_service_survives_its_worker() -> None:
    """Its counters do not go backwards: their labels may have the names of ours, and say something else."""
    workers = [Worker(0), Worker(1)]
    for worker in workers:
        labels = ["service", "endpoint"]
        counter = Counter("gateway_plugin_p_bookings", "Booked.", labels, registry=worker.metrics.registry)
        counter.labels("laundry", "/rooms").inc(2)
    for found in (shown(workers), shown(workers[:1], gone(None, workers[1].says(), 1))):
        assert value(found, "gateway_plugin_p_bookings_total", service="laundry", endpoint="/rooms") == 4


def test_families_of_users_policies_are_there() -> None:
    """Of any kind that prometheus-client has; where a sum has no meaning, each worker has a series."""
    workers = [Worker(0), Worker(1)]
    for number, worker in enumerate(workers):
        registry = worker.metrics.registry
        Counter("bookings", "Booked.", ["room"], registry=registry).labels("a").inc(1 + number)
        Summary("size_bytes", "Sizes.", registry=registry).observe(10)
        Gauge("level", "A level.", registry=registry).set([math.nan, math.inf][number])
        Info("model", "Which.", registry=registry).info({"kind": "m"})
        Enum("phase", "Which.", states=["on", "off"], registry=registry).state(["on", "off"][number])
        Histogram("wait_seconds", "Waits.", buckets=(1, 2), unit="seconds", registry=registry).observe(1.5)
    found = shown(workers)
    assert value(found, "bookings_total", room="a") == 3
    assert value(found, "size_bytes_count") == 2
    assert value(found, "size_bytes_sum") == 20
    assert math.isnan(value(found, "level", worker="0") or 0)
    assert value(found, "level", worker="1") == math.inf
    assert value(found, "model_info", kind="m", worker="0") == 1
    assert value(found, "phase", phase="off", worker="1") == 1
    assert value(found, "wait_seconds_bucket", le="2.0") == 2
    text = page([worker.says() for worker in workers], (), True, lambda: None)[1].decode()
    assert "# UNIT wait_seconds seconds\n" in text
    assert list(openmetrics_parser.text_string_to_metric_families(text))


def test_the_latest_exemplar_is_shown() -> None:
    """In OpenMetrics, which has them."""
    workers = [Worker(0), Worker(1)]
    for worker, trace in zip(workers, ("old", "new"), strict=True):
        waits = Histogram("wait_seconds", "Waits.", buckets=(1, 2), registry=worker.metrics.registry)
        waits.observe(1.5, {"trace_id": trace})
    text = page([worker.says() for worker in reversed(workers)], (), True, lambda: None)[1].decode()
    (line,) = [line for line in text.splitlines() if "#" in line[1:]]
    assert re.fullmatch(r'wait_seconds_bucket\{le="2.0"\} 2.0 # \{trace_id="new"\} 1.5 [\d.]+', line)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_pattern_survives(pattern: str) -> None:
    """Whatever a configuration has for a path arrives as it is."""
    worker = Worker(0, pattern)
    worker.serve(pattern)
    text = page([worker.says()], (), True, lambda: None)[1]
    paths = {dict(labels).get("path") for _, labels in parsed(text, True)}
    assert pattern in paths


def test_few_pauses_where_there_is_little_to_say() -> None:
    """Each wakes a thread, and every worker says what it has counted once a second: not one for each family."""
    worker, pauses = Worker(0), 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1

    packed(worker.metrics, 0, pause)
    assert pauses <= 5
    pauses = 0
    worker.metrics.render(pause=pause)
    assert pauses <= 5


def test_others_have_their_turn_while_it_is_added_up() -> None:
    """Two workers of 1,000 routes: at most 64 routes or series are added or written at once."""
    workers = [Worker(index, *(f"/r{number}" for number in range(1000))) for index in range(2)]
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1

    said = [packed(worker.metrics, worker.index, pause) for worker in workers]
    assert pauses >= 2 * 2 * 1000 / 64
    pauses = 0
    page(said, (), False, pause)
    assert pauses >= 2 * 2 * 1000 / 64 + 2 * 1000 / 64
