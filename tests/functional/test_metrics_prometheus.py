"""A real Prometheus reads a real daemon: its numbers, and those on the dashboard, are what was sent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from grafana.dashboard import dashboard
from support.daemon import Daemon, Document, gateway
from support.endings import SECRET
from support.prometheus_server import Prometheus, needs
from support.services import Received, Service, echo
from support.waiting import eventually

MIXTURE = {
    ("GET", "/orders/1", "/orders/:id", 200): 40,
    ("POST", "/orders/1", "/orders/:id", 200): 10,
    ("GET", "/private/1", "/private/:id", 401): 6,
    ("GET", "/nothing", "unmatched", 404): 9,
    ("DELETE", "/orders/1", "unmatched", 405): 5,
    ("GET", "/limited", "/limited", 429): 8,
    ("GET", "/broken/1", "/broken/:id", 503): 7,
    ("GET", "/slow/1", "/slow/:id", 504): 3,
}
"""How often what is sent, which route it takes, and how it is answered."""
TIMEOUT = 0.3

PANELS = {panel["title"]: panel for panel in dashboard()["panels"] if panel["type"] != "row"}
QUERIES = [(title, target["expr"]) for title, panel in PANELS.items() for target in panel["targets"]]
VARIABLES = dict.fromkeys(("$job", "$instance", "$service", "$route"), ".*") | dict.fromkeys(
    ("$__rate_interval", "$__range"), "1m"
)


def configured(service: Service) -> Document:
    breaker = {"error_rate": 0.1, "min_requests": 3, "open_for": "1h"}
    services = {
        "orders": service.url,
        "broken": {"targets": [service.url], "circuit_breaker": breaker},
        "slow": {"targets": [service.url], "timeout": f"{TIMEOUT:g}s"},
    }
    routes = [
        {"path": "/orders/:id", "service": "orders", "methods": ["GET", "POST"], "auth": "none"},
        {"path": "/private/:id", "service": "orders"},
        {"path": "/limited", "service": "orders", "auth": "none"},
        {"path": "/broken/:id", "service": "broken", "auth": "none"},
        {"path": "/slow/:id", "service": "slow", "auth": "none"},
    ]
    return gateway(services=services, routes=routes) | {
        "auth": {"jwt": [{"name": "main", "algorithm": "HS256", "secret": SECRET}]},
        "rate_limits": [{"endpoint": "/limited", "limit": 1, "window": "1h", "scope": "endpoint"}],
    }


def behave(received: Received) -> None:
    if received.target.startswith("/slow"):
        received.conversation.wait_for_end()
    elif received.target.startswith("/broken"):
        received.conversation.answer(503)
    else:
        echo(received)


def send_all(daemon: Daemon) -> None:
    for (method, target, _, status), times in MIXTURE.items():
        with daemon.connect() as client:
            for _ in range(times):
                assert client.request(method, target).status == status


@frozen
class Observed:
    """Where Prometheus has seen the mixture sent once before its first scrape, and once more since."""

    prometheus: Prometheus
    at: float

    def query(self, expr: str) -> list[dict[str, Any]]:
        for name, value in VARIABLES.items():
            expr = expr.replace(name, value)
        return self.prometheus.query(expr, self.at)

    def panel(self, title: str, label: str = "", target: int = 0) -> dict[str, float]:
        samples = self.query(PANELS[title]["targets"][target]["expr"])
        return {sample["metric"].get(label, ""): float(sample["value"][1]) for sample in samples}


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    with ExitStack() as stack:
        service = Service(behave)
        stack.callback(service.close)
        daemon = stack.enter_context(Daemon(tmp_path_factory.mktemp("gateway"), configured(service)))
        with daemon.connect() as client:
            assert client.get("/limited").status == 200  # the limit is used up
        # Rates are seen where a counter grows: what is there at the first scrape must be there at the last.
        send_all(daemon)
        eventually(daemon.is_quiet)
        directory: Path = tmp_path_factory.mktemp("prometheus")
        host, port = daemon.admin
        (directory / "prometheus.yml").write_text(
            "global: {scrape_interval: 250ms}\n"
            f'scrape_configs: [{{job_name: apigw, static_configs: [{{targets: ["{host}:{port}"]}}]}}]\n'
        )
        prometheus = stack.enter_context(Prometheus(directory))
        sent = 1 + sum(MIXTURE.values())
        eventually(lambda: prometheus.value("sum(gateway_requests_total)") == sent)
        send_all(daemon)
        sent += sum(MIXTURE.values())
        at = eventually(lambda: time.time() if prometheus.value("sum(gateway_requests_total)") == sent else 0.0)
        yield Observed(prometheus, at)


@needs("prometheus")
def test_prometheus_has_the_very_numbers(observed: Observed) -> None:
    """An answer is counted under another status, route or method, or not at all."""
    found = {
        tuple(sample["metric"][label] for label in ("method", "path", "status")): float(sample["value"][1])
        for sample in observed.query("gateway_requests_total")
    }
    expected: Counter[tuple[str, ...]] = Counter({("GET", "/limited", "200"): 1})
    for (method, _, path, status), times in MIXTURE.items():
        expected[method, path, str(status)] += 2 * times
    assert found == expected


@needs("prometheus")
@pytest.mark.parametrize(("title", "expr"), QUERIES, ids=[f"{title}-{n}" for n, (title, _) in enumerate(QUERIES)])
def test_every_panel_has_data(observed: Observed, title: str, expr: str) -> None:
    """A panel is empty, or shows NaN, after traffic of every kind."""
    result = observed.query(expr)
    # A percentile of a service that has answered nothing is none.
    assert any(sample["value"][1] != "NaN" for sample in result)


@needs("prometheus")
def test_panels_agree_with_what_was_sent(observed: Observed) -> None:
    """Shares are wrong, percentiles are off by a bucket, violations are forgotten."""
    total = sum(MIXTURE.values())
    per_path: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    for (_, _, path, status), times in MIXTURE.items():
        per_path[path] += times
        failed[path] += times * (status >= 500)
        classes[f"{status // 100}xx"] += times
    # Every series has doubled between the same two scrapes: Prometheus extrapolates all of them alike.
    rate = observed.panel("Requests per second")[""]
    one = rate / total
    assert 0.5 <= one * 60 <= 2
    approx = pytest.approx
    assert observed.panel("Top 10 endpoints by traffic", "path") == approx(
        {path: times * one for path, times in per_path.items()}
    )
    assert observed.panel("Status classes", "class") == approx({name: n * one for name, n in classes.items()})
    assert observed.panel("Errors") == approx({"": failed.total() / total})
    assert observed.panel("Error rate by endpoint", "path") == approx(
        {path: failed[path] / times for path, times in per_path.items()}
    )
    refused = MIXTURE["GET", "/limited", "/limited", 429]
    assert observed.panel("Rate-limit violations by limit", "endpoint") == approx({"/limited": refused * one})
    violations = observed.panel("Rate-limit violations")[""]
    assert violations == approx(refused * one * 60)
    p50, p95, p99 = (observed.panel("Latency", target=target)[""] for target in range(3))
    assert p50 < p95
    assert 0.25 <= p99 <= 0.5  # the three slowest of 88: one in the bucket of the timeout
    assert observed.panel("Authentication failures", "reason")["missing"] == approx(6 * one)
    assert observed.panel("Circuits", "service") == {"orders": 0, "broken": 1, "slow": 0}
    assert observed.panel("Upstream errors", "service") == approx({"slow": 3 * one})
    assert observed.panel("Upstream errors", "kind") == approx({"timeout": 3 * one})
    assert observed.panel("In flight") == {"": 0}
    assert observed.panel("Instances") == {"": 1}
    assert observed.panel("Last reload") == {"": 1}


@needs("prometheus")
def test_prometheus_sees_a_healthy_target(observed: Observed) -> None:
    """The scrape fails, and nobody is told for a minute."""
    assert observed.query("up")[0]["value"][1] == "1"
