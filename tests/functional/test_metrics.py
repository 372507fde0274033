"""What a real daemon counts: every exchange, exactly once, however it ended."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from prometheus_client.samples import Sample
from support import endings
from support.client import Client
from support.daemon import Daemon, Document, gateway
from support.endings import Behaviour, metrics_text
from support.services import Service
from support.waiting import eventually

from apigw.ops.metrics import METHODS

from .conftest import Start

Read = Callable[[], list[Sample]]


def samples(daemon: Daemon) -> list[Sample]:
    return [sample for family in parse_plain(metrics_text(daemon)) for sample in family.samples]


def counted(daemon: Daemon, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The values of one metric by the values of its labels, without those at zero."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for sample in samples(daemon)
        if sample.name == name and sample.value
    }


def value(daemon: Daemon, name: str, **labels: str) -> float | None:
    found = [each.value for each in samples(daemon) if each.name == name and labels.items() <= each.labels.items()]
    return found[0] if found else None


@pytest.fixture
def behaviour(service: Service) -> Iterator[Behaviour]:
    service.behave = behaviour = Behaviour()
    yield behaviour


def test_every_ending_is_counted_exactly_once(start: Start, service: Service, behaviour: Behaviour) -> None:
    """Errors are counted twice, or clients that left not at all: then nobody trusts the graphs."""
    daemon = start(endings.document(service))
    done = endings.all_done(daemon, behaviour)
    requests: Counter[tuple[str, ...]] = Counter()
    durations: Counter[tuple[str, ...]] = Counter()
    for ending in done:
        method = ending.method if ending.method in METHODS else "OTHER"
        requests[method, ending.path, str(ending.status)] += 1
        durations[method, ending.path] += ending.timed
    eventually(lambda: counted(daemon, "gateway_requests_total", "method", "path", "status") == dict(requests))
    assert counted(daemon, "gateway_request_duration_seconds_count", "method", "path") == dict(+durations)
    assert value(daemon, "gateway_requests_in_flight") == 0
    # A whole answer came: those of 200 and 503 that no problem cut short, but for the event stream.
    whole = Counter(ending.path.split("/")[1] for ending in done if ending.made_by == "upstream" and ending.timed)
    whole["main"] += whole.pop("limited")
    whole["main"] -= sum(ending.status == 499 and ending.made_by == "upstream" for ending in done)
    assert counted(daemon, "gateway_upstream_duration_seconds_count", "service") == {
        (name,): count for name, count in whole.items()
    }
    assert counted(daemon, "gateway_upstream_errors_total", "service", "kind") == {
        ("gone", "connect"): 1,
        ("hasty", "timeout"): 2,
        ("main", "protocol"): 1,
        ("main", "lost"): 1,
    }
    assert counted(daemon, "gateway_rate_limit_violations_total", "endpoint", "scope") == {("/limited", "endpoint"): 1}
    assert counted(daemon, "gateway_circuit_breaker_state", "service") == {("fragile",): 1}
    assert counted(daemon, "gateway_circuit_breaker_transitions_total", "service", "to") == {("fragile", "open"): 1}
    assert counted(daemon, "gateway_auth_failures_total", "reason") == {("missing",): 1, ("malformed",): 1}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_accepts_what_a_busy_daemon_says(start: Start, service: Service, behaviour: Behaviour) -> None:
    """Prometheus refuses the whole page for one bad line."""
    daemon = start(endings.document(service))
    endings.all_done(daemon, behaviour)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics_text(daemon), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_both_formats_say_the_same(start: Start, service: Service, behaviour: Behaviour) -> None:
    """A newer Prometheus asks for OpenMetrics, and sees something else."""
    daemon = start(endings.document(service))
    endings.all_done(daemon, behaviour)
    with Client(daemon.admin) as client:
        plain = client.get("/metrics", "Accept: text/plain")
        other = client.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert (plain.get("content-type") or "").startswith("text/plain; version=0.0.4")
    assert (other.get("content-type") or "").startswith("application/openmetrics-text; version=1.0.0")

    def requests(families: object) -> set[tuple[tuple[tuple[str, str], ...], float]]:
        return {
            (tuple(sorted(sample.labels.items())), sample.value)
            for family in families  # type: ignore[attr-defined]
            for sample in family.samples
            if sample.name == "gateway_requests_total"
        }

    assert requests(parse_plain(plain.body.decode())) == requests(parse_openmetrics(other.body.decode()))


def test_the_public_page_is_for_those_who_may(start: Start, service: Service) -> None:
    """Anybody on the Internet can read which services there are."""
    shown = start(gateway(services={"main": service.url}, routes=[{"path": "/*", "service": "main"}]))
    assert b"gateway_build_info" in shown.get("/metrics").body
    # From a proxy on the same machine that nobody trusts.
    assert shown.get("/metrics", "X-Forwarded-For: 203.0.113.7").status == 404
    hidden = gateway(
        services={"main": service.url}, routes=[{"path": "/*", "service": "main"}], metrics_allow=["10.0.0.0/8"]
    )
    daemon = start(hidden)
    answer = daemon.get("/metrics", "X-Forwarded-For: 10.0.0.1")
    assert (answer.status, answer.code) == (404, "not_found")
    assert service.requests == []
    assert b"gateway_build_info" in metrics_text(daemon).encode()


def two(service: Service) -> Document:
    services = dict.fromkeys(("old", "kept"), service.url)
    routes = [{"path": f"/{name}", "service": name} for name in services]
    limits = [{"endpoint": f"/{name}", "limit": 1, "window": "1h", "scope": "ip"} for name in services]
    return gateway(services=services, routes=routes) | {"rate_limits": limits}


def labelled(daemon: Daemon) -> set[str]:
    """Every route, service and limit that some series names."""
    names = ("path", "service", "endpoint")
    return {sample.labels[name] for sample in samples(daemon) for name in names if name in sample.labels}


def test_series_go_with_what_a_reload_removes(start: Start, service: Service) -> None:
    """A service that was removed last year still has an alert, and memory grows with every change."""
    daemon = start(two(service))
    for path in ("/old", "/old", "/kept", "/kept"):
        daemon.get(path)
    assert labelled(daemon) == {"/old", "/kept", "old", "kept"}
    document = two(service)
    del document["services"]["old"], document["routes"][0], document["rate_limits"][0]
    assert daemon.reload(document)
    eventually(lambda: labelled(daemon) == {"/kept", "kept"})
    assert value(daemon, "gateway_requests_total", path="/kept", status="429") == 1
    assert daemon.reload(two(service))
    daemon.get("/old")
    assert eventually(lambda: counted(daemon, "gateway_requests_total", "path", "status").get(("/old", "429"))) == 1
    assert value(daemon, "gateway_config_reloads_total", result="success") == 2
    assert value(daemon, "gateway_config_last_reload_successful") == 1


def test_a_configuration_that_was_refused_leaves_no_series(start: Start, service: Service) -> None:
    """The graphs show a service that was never there."""
    daemon = start(two(service))
    document = two(service)
    document["services"]["new"] = {"targets": [service.url]}
    document["services"]["broken"] = {"targets": [service.url.replace("http", "https")], "tls": {"ca_file": __file__}}
    assert not daemon.reload(document)
    eventually(lambda: value(daemon, "gateway_config_last_reload_successful") == 0)
    assert labelled(daemon) == {"/old", "/kept", "old", "kept"}


def test_paths_of_the_gateway_itself_outlive_a_reload(start: Start, service: Service) -> None:
    """What the token endpoint has answered stays counted, even after a reload that drops it."""
    document = two(service)
    document["gateway"]["auth_default"] = "none"
    signing = {"algorithm": "HS256", "key_id": "k", "secret": "s" * 32}
    daemon = start({**document, "auth": {"oauth": {"signing": signing, "issuer": "https://me"}}})
    assert daemon.get("/oauth/token").status == 405
    assert daemon.reload(document)
    eventually(lambda: value(daemon, "gateway_config_reloads_total", result="success") == 1)
    assert value(daemon, "gateway_requests_total", path="/oauth/token", status="405") == 1


def test_connections_go_back_to_zero(start: Start, service: Service) -> None:
    """A gauge that stands where the last busy hour left it."""
    daemon = start(two(service))
    assert value(daemon, "gateway_connections", protocol="HTTP/1.1") == 0
    with daemon.connect() as client:
        client.get("/kept")
        eventually(lambda: value(daemon, "gateway_connections", protocol="HTTP/1.1") == 1)
    eventually(lambda: value(daemon, "gateway_connections", protocol="HTTP/1.1") == 0)


def test_a_limit_that_refused_nobody_stands_at_zero(start: Start, service: Service) -> None:
    """The first refusal of an hour is not in any rate."""
    daemon = start(two(service))
    assert value(daemon, "gateway_rate_limit_violations_total", endpoint="/old") == 0
    assert value(daemon, "gateway_upstream_errors_total", service="old", kind="timeout") == 0


def test_rubbish_on_the_admin_listener_is_not_traffic(start: Start, service: Service) -> None:
    """A scanner in the operators' network looks like errors of the gateway's clients."""
    daemon = start(two(service))
    with Client(daemon.admin) as client:
        client.send("rubbish\r\n\r\n")
        while client.more():
            pass
        assert b" 400 " in client.unread
    assert counted(daemon, "gateway_requests_total", "path", "status") == {}


def test_two_thousand_routes(start: Start, service: Service) -> None:
    """A large configuration cannot be scraped, or loses routes."""
    routes = [{"path": f"/route{number}/:id", "service": "main"} for number in range(2000)]
    daemon = start(gateway(services={"main": service.url}, routes=routes))
    with daemon.connect() as client:
        for number in range(2000):
            assert client.get(f"/route{number}/1").status == 200

    def seen() -> bool:
        return len(counted(daemon, "gateway_requests_total", "path")) == 2000

    eventually(seen)
    assert len(counted(daemon, "gateway_request_duration_seconds_count", "path")) == 2000
