"""Writes ``gateway.json``, the Grafana dashboard: ``python contrib/grafana/dashboard.py``.

The JSON is what Grafana imports; this is where a panel is changed, so that a change can be read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Panel = dict[str, Any]

OUTPUT = Path(__file__).with_name("gateway.json")

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WHERE = 'job=~"$job",instance=~"$instance"'
ROUTE = f'{WHERE},path=~"$route"'
SERVICE = f'{WHERE},service=~"$service"'
RATE = "[$__rate_interval]"

GREEN, YELLOW, RED = "green", "yellow", "red"


def query(expr: str, legend: str = "", instant: bool = False) -> dict[str, Any]:
    kind = {"instant": True, "range": False, "format": "table"} if instant else {"instant": False, "range": True}
    return {"datasource": DATASOURCE, "editorMode": "code", "expr": expr, "legendFormat": legend, **kind}


def panel(kind: str, title: str, description: str, width: int, *targets: dict[str, Any], **more: Any) -> Panel:
    """``more`` may have ``defaults`` (of the fields), ``options``, ``overrides`` and ``transformations``."""
    height = more.pop("height", 8)
    defaults = more.pop("defaults", {})
    overrides = more.pop("overrides", [])
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"h": height, "w": width, "x": 0, "y": 0},
        "targets": [{"refId": chr(ord("A") + number), **target} for number, target in enumerate(targets)],
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        **more,
    }


def lines(
    title: str, description: str, width: int, *targets: dict[str, Any], unit: str = "short", stacked: bool = False
) -> Panel:
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 8,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults = {"unit": unit, "min": 0, "custom": custom}
    return panel("timeseries", title, description, width, *targets, defaults=defaults, options=options)


def states(title: str, description: str, width: int, target: dict[str, Any], named: list[tuple[str, str]]) -> Panel:
    """Bars over time: what the numbers 0, 1, … mean, and their colours."""
    words = {str(at): {"text": text, "color": color, "index": at} for at, (text, color) in enumerate(named)}
    defaults = {
        "color": {"mode": "thresholds"},
        "custom": {"fillOpacity": 70, "lineWidth": 0},
        "thresholds": {"mode": "absolute", "steps": [{"color": GREEN, "value": None}]},
        "mappings": [{"type": "value", "options": words}],
    }
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.9,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel("state-timeline", title, description, width, target, defaults=defaults, options=options)


def number(
    title: str,
    description: str,
    width: int,
    target: dict[str, Any],
    steps: list[tuple[str, float | None]],
    words: dict[str, str] | None = None,
    unit: str = "short",
) -> Panel:
    """One big number, coloured by ``steps``; ``words`` say what 0 and 1 mean."""
    defaults: dict[str, Any] = {
        "unit": unit,
        "decimals": 2 if unit == "percentunit" else 0,
        "color": {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": [{"color": color, "value": at} for color, at in steps]},
        "mappings": [{"type": "value", "options": {key: {"text": text} for key, text in (words or {}).items()}}],
    }
    options = {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return panel("stat", title, description, width, target, defaults=defaults, options=options, height=4)


def quantile(q: str, by: str, family: str, where: str) -> str:
    return f"histogram_quantile({q}, sum by ({by}) (rate({family}_bucket{{{where}}}{RATE})))"


def rate(family: str, where: str = WHERE, by: str = "") -> str:
    return f"sum {f'by ({by}) ' if by else ''}(rate({family}{{{where}}}{RATE}))"


REQUESTS = "gateway_requests_total"
DURATION = "gateway_request_duration_seconds"
UPSTREAM = "gateway_upstream_duration_seconds"

ALL_BY_PATH = f"sum by (path) (rate({REQUESTS}{{{ROUTE}}}{RATE}))"
FAILED_BY_PATH = f'sum by (path) (rate({REQUESTS}{{{ROUTE},status=~"5.."}}{RATE}))'

IN_SERVICES = rate(UPSTREAM + "_sum")
MEASURED = rate(DURATION + "_count")

WITHOUT_TIME = [{"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": {}}}]

PANELS: dict[str, list[Panel]] = {
    "Now": [
        number("Instances", "Gateways that answer Prometheus.", 4,
               query(f"count(gateway_build_info{{{WHERE}}}) or vector(0)"), [(RED, None), (GREEN, 1)]),
        number("Rate-limit violations", "Requests refused by a limit in the time that is shown.", 4,
               query(f"sum(increase(gateway_rate_limit_violations_total{{{WHERE}}}[$__range]))", instant=True),
               [(GREEN, None), (YELLOW, 1)]),
        number("Errors", "Share of requests answered with a 5xx.", 4,
               query(f'(sum(rate({REQUESTS}{{{ROUTE},status=~"5.."}}{RATE})) or vector(0)) / {rate(REQUESTS, ROUTE)}'),
               [(GREEN, None), (YELLOW, 0.01), (RED, 0.05)], unit="percentunit"),
        number("In flight", "Requests that have begun and not ended.", 4,
               query(f"sum(gateway_requests_in_flight{{{WHERE}}})"), [(GREEN, None)]),
        number("Limit store", "Whether every gateway reaches the store of its limits.", 4,
               query(f"min(gateway_rate_limit_store_up{{{WHERE}}})"), [(RED, None), (GREEN, 1)],
               {"0": "down", "1": "up"}),
        number("Last reload", "Whether every gateway serves the configuration that it read last.", 4,
               query(f"min(gateway_config_last_reload_successful{{{WHERE}}})"), [(RED, None), (GREEN, 1)],
               {"0": "failed", "1": "good"}),
    ],
    "Traffic": [
        lines("Requests per second", "All requests, whoever answered them.", 12,
              query(rate(REQUESTS, ROUTE), "requests"), unit="reqps"),
        lines("Latency", "From a request's head to its response's end; without tunnels and event streams.", 12,
              *(query(quantile(f"0.{digits}", "le", DURATION, ROUTE), f"p{digits}") for digits in ("50", "95", "99")),
              unit="s"),
        panel("barchart", "Error rate by endpoint", "Share of requests that were answered with a 5xx.", 12,
              query(f"({FAILED_BY_PATH} or 0 * {ALL_BY_PATH}) / ({ALL_BY_PATH} > 0)", instant=True),
              defaults={"unit": "percentunit", "min": 0, "custom": {"fillOpacity": 80, "lineWidth": 1}},
              options={"xField": "path", "orientation": "horizontal", "showValue": "auto", "stacking": "none",
                       "barWidth": 0.9, "groupWidth": 0.7, "barRadius": 0, "fullHighlight": False,
                       "xTickLabelRotation": 0, "xTickLabelSpacing": 0,
                       "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
                       "tooltip": {"mode": "single", "sort": "none"}},
              transformations=WITHOUT_TIME),
        panel("bargauge", "Top 10 endpoints by traffic", "Requests per second.", 12,
              query(f"sort_desc(topk(10, {ALL_BY_PATH}))", "{{path}}", instant=True) | {"format": "time_series"},
              defaults={"unit": "reqps", "min": 0, "color": {"mode": "continuous-BlPu"}},
              options={"orientation": "horizontal", "displayMode": "gradient", "valueMode": "color",
                       "namePlacement": "auto", "showUnfilled": True, "sizing": "auto", "minVizWidth": 8,
                       "minVizHeight": 16, "maxVizHeight": 300,
                       "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
                       "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}),
        lines("Status classes", "Requests per second; 499 is a client that left.", 12,
              query(f'sum by (class) (label_replace(rate({REQUESTS}{{{ROUTE}}}{RATE}), '
                    '"class", "${1}xx", "status", "(.).*"))', "{{class}}"), unit="reqps", stacked=True),
        lines("Rate-limit violations by limit", "Requests per second that a limit refused.", 12,
              query(rate("gateway_rate_limit_violations_total", by="endpoint, kind, scope"),
                    "{{endpoint}} by {{scope}}, {{kind}}"),
              unit="reqps"),
    ],
    "Whose fault": [
        lines("Gateway time and upstream time", "Mean seconds of a request that services take, and the gateway.", 12,
              query(f"{IN_SERVICES} / {MEASURED}", "services"),
              query(f"clamp_min({rate(DURATION + '_sum')} - {IN_SERVICES}, 0) / {MEASURED}", "gateway"),
              unit="s", stacked=True),
        lines("Service latency, p95", "What services took.", 12,
              query(quantile("0.95", "le, service", UPSTREAM, SERVICE), "{{service}}"), unit="s"),
        lines("Upstream errors", "Calls per second to a service that failed.", 12,
              query(rate("gateway_upstream_errors_total", SERVICE, "service, kind") + " > 0", "{{service}} {{kind}}"),
              unit="reqps"),
        lines("Retries", "Requests per second that are sent again, by why; denied: too many were under way.", 12,
              query(rate("gateway_upstream_retries_total", SERVICE, "service, reason") + " > 0",
                    "{{service}} {{reason}}"),
              query(rate("gateway_upstream_retries_denied_total", SERVICE, "service") + " > 0", "{{service}} denied"),
              unit="reqps"),
        lines("Splits", "Requests per second of routes with a split, by the service that was chosen.", 12,
              query(rate("gateway_split_requests_total", SERVICE, "route, service"), "{{route}}: {{service}}"),
              unit="reqps"),
        states("Circuits", "The worst state among the gateways.", 12,
               query(f"max by (service) (gateway_circuit_breaker_state{{{SERVICE}}})", "{{service}}"),
               [("closed", GREEN), ("open", RED), ("half-open", YELLOW)]),
        lines("Circuit transitions", "Changes of state.", 12,
              query(f"sum by (service, to) (increase(gateway_circuit_breaker_transitions_total{{{SERVICE}}}{RATE}))",
                    "{{service}} {{to}}")),
        states("Targets", "Whether a target gets requests, from all gateways: it is not unhealthy or ejected.", 12,
               query(f"min by (service, target) (gateway_target_up{{{SERVICE}}})", "{{service}} {{target}}"),
               [("down", RED), ("up", GREEN)]),
        lines("Ejections", "How often a target was taken out because it failed several times in a row.", 12,
              query(f"sum by (service) (increase(gateway_upstream_ejections_total{{{SERVICE}}}{RATE}))",
                    "{{service}}")),
        lines("Authentication failures", "Callers turned away per second, by reason.", 12,
              query(rate("gateway_auth_failures_total", by="reason"), "{{reason}}"), unit="reqps"),
    ],
    "The gateway itself": [
        lines("Requests in flight", "By gateway.", 8,
              query(f"sum by (instance) (gateway_requests_in_flight{{{WHERE}}})", "{{instance}}")),
        lines("Connections", "Open connections of clients.", 8,
              query(f"sum by (protocol) (gateway_connections{{{WHERE}}})", "{{protocol}}")),
        lines("Connections refused", "Per second, closed at once: the gateway is full, or one address has its part.", 8,
              query(f"sum by (reason) (rate(gateway_connections_refused_total{{{WHERE}}}{RATE}))", "{{reason}}")),
        lines("Reactor lag, p99", "How late the gateway gets to what it has to do: blocked, or full.", 8,
              query(quantile("0.99", "le, instance", "gateway_reactor_lag_seconds", WHERE), "{{instance}}"), unit="s"),
        lines("Name lookups", "Per second, by result; old: the last good addresses were used.", 8,
              query(f"sum by (result) (rate(gateway_dns_lookups_total{{{WHERE}}}{RATE}))", "{{result}}"),
              query(f"sum(rate(gateway_dns_old_answers_total{{{WHERE}}}{RATE}))", "old"), unit="reqps"),
        lines("Name lookups in progress", "Those that stay hang.", 8,
              query(f"sum by (instance) (gateway_dns_lookups_in_progress{{{WHERE}}})", "{{instance}}")),
        lines("Limit checks without the store", "Checks per second decided without Redis.", 8,
              query(rate("gateway_rate_limit_fallbacks_total"), "checks"), unit="reqps"),
        lines("Reloads and upgrades", "By result.", 8,
              query(f"sum by (result) (increase(gateway_config_reloads_total{{{WHERE}}}{RATE}))", "reload: {{result}}"),
              query(f"sum by (result) (increase(gateway_upgrades_total{{{WHERE}}}{RATE}))", "upgrade: {{result}}")),
        lines("CPU", "Cores in use; a gateway can use one.", 8,
              query(f"sum by (instance) (rate(process_cpu_seconds_total{{{WHERE}}}{RATE}))", "{{instance}}")),
        lines("Memory", "Resident bytes.", 8,
              query(f"sum by (instance) (process_resident_memory_bytes{{{WHERE}}})", "{{instance}}"), unit="bytes"),
        lines("Open files", "Share of what the process may open.", 8,
              query(f"max by (instance) (process_open_fds{{{WHERE}}} / process_max_fds{{{WHERE}}})", "{{instance}}"),
              unit="percentunit"),
        lines("Uptime", "Since the start of the process.", 8,
              query(f"time() - max by (instance) (process_start_time_seconds{{{WHERE}}})", "{{instance}}"), unit="s"),
        lines("Requests shed", "Refused at once, per second: too many in flight (full), or the reactor is late.", 8,
              query(rate("gateway_requests_shed_total", by="reason"), "{{reason}}"), unit="reqps"),
        lines("Buffered bodies", "Bytes of requests' bodies that are kept until they are whole.", 8,
              query(f"sum by (instance) (gateway_buffered_bytes{{{WHERE}}})", "{{instance}}"), unit="bytes"),
        lines("Bodies", "Bytes per second, from clients (in) and to clients (out).", 8,
              query(rate("gateway_body_bytes_total", by="direction"), "{{direction}}"), unit="Bps"),
        lines("Connections to services", "Open ones, and requests that wait for one.", 8,
              query(f"sum by (service) (gateway_upstream_connections{{{SERVICE}}})", "{{service}}"),
              query(f"sum by (service) (gateway_upstream_waiting_requests{{{SERVICE}}}) > 0", "{{service}} waiting")),
        lines("Certificates", "Time until the certificate for a name ends.", 8,
              query(f"min by (name) (gateway_certificate_expires_seconds{{{WHERE}}}) - time()", "{{name}}"), unit="s"),
        lines("Lost lines of logs", "Lines that could not be written: a disk is full, or nobody reads the pipe.", 8,
              query(f"sum by (log) (increase(gateway_log_lines_lost_total{{{WHERE}}}{RATE}))", "{{log}}")),
    ],
}  # fmt: skip

LEFT_OUT = {
    "gateway_dns_lookup_duration_seconds": "what takes long is seen in progress, and in answers that are old",
    "process_virtual_memory_bytes": "says nothing about what is used",
}
"""Exported families that no panel shows, and why."""


def laid_out() -> list[Panel]:
    """The panels from left to right and top to bottom, a row's title above each group."""
    placed: list[Panel] = []
    x = y = height = 0
    for title, panels in PANELS.items():
        y += height
        placed.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})  # fmt: skip
        x, y, height = 0, y + 1, 0
        for one in panels:
            grid = one["gridPos"]
            if x + grid["w"] > 24:
                x, y, height = 0, y + height, 0
            placed.append(one | {"gridPos": grid | {"x": x, "y": y}})
            x, height = x + grid["w"], max(height, grid["h"])
    return [{**one, "id": number} for number, one in enumerate(placed, 1)]


def variable(name: str, label: str, expr: str) -> dict[str, Any]:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": expr, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
    }


def dashboard() -> dict[str, Any]:
    source = {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "current": {"selected": False, "text": "default", "value": "default"},
        "options": [],
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "skipUrlSync": False,
    }
    return {
        "uid": "apigw",
        "title": "API gateway",
        "description": "Requests, latency, errors, limits, services and the gateway itself.",
        "tags": ["apigw"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m", "5m"]},
        "templating": {
            "list": [
                source,
                variable("job", "Job", "label_values(gateway_build_info, job)"),
                variable("instance", "Instance", 'label_values(gateway_build_info{job=~"$job"}, instance)'),
                variable("service", "Service", f"label_values({UPSTREAM}_count{{{WHERE}}}, service)"),
                variable("route", "Route", f"label_values({REQUESTS}{{{WHERE}}}, path)"),
            ]
        },
        "annotations": {"list": []},
        "links": [],
        "panels": laid_out(),
    }


def rendered() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(rendered())
