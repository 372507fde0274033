"""The dashboard and the alerts agree with what the gateway exports: every query gives data, and the right numbers."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.limits import limit
from support.prometheus_server import Prometheus, needs

from apigw.ops.measured import Certificates, Pools
from apigw.ops.metrics import Metrics
from apigw.policy.auth.series import AuthSeries
from apigw.policy.limits.series import LimitSeries
from apigw.policy.split.series import SplitSeries

CONTRIB = Path(__file__).parents[2] / "contrib"

VARIABLES = {
    "$__rate_interval": "1m",
    "$__range": "10m",
    "$job": ".*",
    "$instance": ".*",
    "$service": ".*",
    "$route": ".*",
}

SCRAPE, SCRAPES = 15, 41
"""Ten minutes of scrapes, in which every series grows evenly."""


def load_dashboard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard", CONTRIB / "grafana" / "dashboard.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DASHBOARD: dict[str, Any] = json.loads((CONTRIB / "grafana" / "gateway.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
QUERIES = [(title, target["expr"]) for title, panel in PANELS.items() for target in panel["targets"]]


def filled(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def test_the_file_is_what_the_program_writes() -> None:
    """Whoever imports the JSON gets the panels that can be read in the program."""
    assert (CONTRIB / "grafana" / "gateway.json").read_text() == load_dashboard().rendered()


def test_the_panels_that_were_promised_are_there() -> None:
    """Requests and latency are lines, errors bars, violations a number, and the whole is read anew every 5 seconds."""
    kinds = {title: panel["type"] for title, panel in PANELS.items()}
    assert kinds["Requests per second"] == kinds["Latency"] == "timeseries"
    assert kinds["Error rate by endpoint"] == "barchart"
    assert kinds["Rate-limit violations"] == "stat"
    assert [target["legendFormat"] for target in PANELS["Latency"]["targets"]] == ["p50", "p95", "p99"]
    top = PANELS["Top 10 endpoints by traffic"]["targets"][0]
    assert "topk(10," in top["expr"]
    assert top["instant"]
    assert DASHBOARD["refresh"] == "5s"
    assert "__inputs" not in DASHBOARD
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert names == {"datasource", "job", "instance", "service", "route"}


def test_panels_do_not_overlap() -> None:
    """Every panel can be seen."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


class Traffic:
    """A gateway whose every series grows by the same in each scrape."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry(), "1.2.3")
        self.limits = LimitSeries(self.metrics.registry)
        self.auth = AuthSeries(self.metrics.registry)
        self.splits = SplitSeries(self.metrics.registry)
        self.metrics.registry.register(Pools(lambda: [("orders", 4, 1)]))
        self.metrics.registry.register(Certificates(lambda: {"a.test": 4e9}))
        self.metrics.reloaded(True)

    def flow(self) -> None:
        metrics = self.metrics
        for status, times in {200: 75, 404: 15, 503: 30}.items():
            for _ in range(times):
                metrics.route("/orders").observe(b"GET", status, 0.2)
        for _ in range(30):
            metrics.route("/users/:id").observe(b"GET", 200, 0.002)
        service = metrics.service("orders")
        for _ in range(90):
            service.observe(0.1)
        service.error("timeout")
        service.retried("503")
        service.retry_denied()
        service.target_is("http://10.0.0.7:8080", False)
        service.target_is("http://10.0.0.8:8080", True)
        service.ejected()
        self.splits.of("orders", "orders").inc()
        service.circuit("open")
        for _ in range(15):
            self.limits.violated(limit(endpoint="/orders", scope="user"))
        self.auth.failed("expired")
        self.limits.fallback()
        metrics.connections("h2").set(7)
        metrics.in_flight = 3
        metrics.bodies.received += 1500
        metrics.bodies.sent += 3000
        metrics.reactor_lag(0.0005)
        metrics.reloaded(True)


def openmetrics(start: int) -> str:
    """All scrapes of that traffic as one OpenMetrics text with timestamps, each series' samples together."""
    traffic = Traffic()
    heads: dict[str, list[str]] = {}
    series: dict[str, dict[str, list[str]]] = {}
    for scrape in range(SCRAPES):
        traffic.flow()
        family = ""
        for line in traffic.metrics.render(True)[1].decode().splitlines():
            if line.startswith("# HELP"):
                family = line.split()[2]
                heads.setdefault(family, [line])
            elif line.startswith("# TYPE") and len(heads[family]) == 1:
                heads[family].append(line)
            elif not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = re.sub(r"^(\w+)\{", r'\1{job="apigw",instance="a",', name)
                name = re.sub(r"^(\w+)$", r'\1{job="apigw",instance="a"}', name)
                series.setdefault(family, {}).setdefault(name, []).append(f"{name} {value} {start + scrape * SCRAPE}")
    lines = []
    for family, head in heads.items():
        lines += [*head, *(line for samples in series.get(family, {}).values() for line in samples)]
    return "\n".join([*lines, "# EOF", ""])


Ask = Any


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks a real Prometheus that has ten minutes of that traffic in its store."""
    directory = tmp_path_factory.mktemp("prometheus")
    end = int(time.time()) // 7200 * 7200 - 3600
    (directory / "metrics.txt").write_text(openmetrics(end - (SCRAPES - 1) * SCRAPE))
    (directory / "prometheus.yml").write_text("")
    load = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "metrics.txt", "data"]
    subprocess.run(load, cwd=directory, check=True, capture_output=True, timeout=60)
    with Prometheus(directory) as server:

        def query(expr: str) -> list[dict[str, Any]]:
            return server.query(filled(expr), end)

        yield query


def panel_values(ask: Ask, title: str, label: str = "", target: int = 0) -> dict[str, float]:
    result = ask(PANELS[title]["targets"][target]["expr"])
    return {sample["metric"].get(label, ""): float(sample["value"][1]) for sample in result}


@needs("prometheus")
@pytest.mark.parametrize(("title", "expr"), QUERIES, ids=[f"{title}-{n}" for n, (title, _) in enumerate(QUERIES)])
def test_every_query_gives_data(ask: Ask, title: str, expr: str) -> None:
    """No panel stays empty after traffic of every kind."""
    result = ask(expr)
    assert result
    assert all(sample["value"][1] != "NaN" for sample in result)


@needs("prometheus")
def test_panels_show_what_was_sent(ask: Ask) -> None:
    """Rates, shares, percentiles and violations are those of the traffic: 10 requests a second, a fifth of them 503."""
    approx = pytest.approx
    assert panel_values(ask, "Requests per second") == approx({"": 10.0})
    assert panel_values(ask, "Errors") == approx({"": 0.2})
    assert panel_values(ask, "Error rate by endpoint", "path") == approx({"/orders": 0.25, "/users/:id": 0.0})
    assert panel_values(ask, "Top 10 endpoints by traffic", "path") == approx({"/orders": 8.0, "/users/:id": 2.0})
    assert panel_values(ask, "Status classes", "class") == approx({"2xx": 7.0, "4xx": 1.0, "5xx": 2.0})
    assert panel_values(ask, "Rate-limit violations") == approx({"": 600.0})
    assert panel_values(ask, "Rate-limit violations by limit", "scope") == approx({"user": 1.0})
    for target, share in ((0, 0.5), (1, 0.95), (2, 0.99)):
        # A fifth of the requests takes at most 2.5 ms, the rest between 100 and 250.
        expected = 0.1 + 0.15 * (share - 0.2) / 0.8
        assert panel_values(ask, "Latency", target=target) == approx({"": expected})
    assert panel_values(ask, "Gateway time and upstream time", target=0) == approx({"": 90 * 0.1 / 150})
    in_gateway = (120 * 0.2 + 30 * 0.002 - 90 * 0.1) / 150
    assert panel_values(ask, "Gateway time and upstream time", target=1) == approx({"": in_gateway})
    assert panel_values(ask, "Circuits", "service") == {"orders": 1.0}
    assert panel_values(ask, "Targets", "target") == {"http://10.0.0.7:8080": 0.0, "http://10.0.0.8:8080": 1.0}
    assert panel_values(ask, "Upstream errors", "kind") == approx({"timeout": 1 / 15})
    assert panel_values(ask, "In flight") == {"": 3.0}
    assert panel_values(ask, "Connections", "protocol") == {"h2": 7.0}
    assert panel_values(ask, "Instances") == {"": 1.0}
    assert panel_values(ask, "Limit store") == panel_values(ask, "Last reload") == {"": 1.0}


def exported() -> dict[str, set[str]]:
    """Every exported sample name with its labels, and those that a scrape adds."""
    found: dict[str, set[str]] = {}
    traffic = Traffic()
    traffic.flow()
    for line in traffic.metrics.render()[1].decode().splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition(" ")[0].partition("{")
            found.setdefault(name, {"job", "instance"}).update(re.findall(r'(\w+)="', rest))
    return found


def selectors(node: Any) -> Iterator[tuple[str, set[str]]]:
    """The names and matched labels of every vector selector in a parsed expression."""
    if hasattr(node, "matchers") and getattr(node, "name", None):
        yield node.name, {matcher.name for matcher in node.matchers.matchers}
    for child in ("expr", "lhs", "rhs", "vector_selector", "vs", "param"):
        if getattr(node, child, None) is not None:
            yield from selectors(getattr(node, child))
    for argument in getattr(node, "args", None) or ():
        yield from selectors(argument)


def test_panels_name_only_what_is_exported_and_leave_nothing_out() -> None:
    """A renamed metric cannot leave a panel empty, and a new one cannot stay unseen."""
    parser = pytest.importorskip("promql_parser", reason="promql-parser is not installed")
    known = exported()
    named: set[str] = set()
    for title, expr in QUERIES:
        used = list(selectors(parser.parse(filled(expr))))
        assert used, title
        for name, labels in used:
            assert labels <= known[name], title
            named.add(name)
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known}
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in named}
    assert families - shown == set(load_dashboard().LEFT_OUT)


@needs("promtool")
@pytest.mark.parametrize("command", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")])
def test_alerts_fire_when_they_should(command: tuple[str, ...]) -> None:
    """Each alert fires for its trouble, and for nothing less."""
    done = subprocess.run(
        ["promtool", *command], cwd=CONTRIB / "prometheus", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    """An alert that nobody has seen fire is not relied upon."""
    rules = (CONTRIB / "prometheus" / "alerts.yml").read_text()
    tests = (CONTRIB / "prometheus" / "alerts_test.yml").read_text()
    assert set(re.findall(r"- alert: (\w+)", rules)) == set(re.findall(r"alertname: (\w+)", tests))
