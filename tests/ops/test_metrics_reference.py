"""The reference pages of metrics and access log are complete, and say nothing that is not so."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from support.limits import limit

from apigw.ops import totals
from apigw.ops.access_line import JSON, Combined, Entry
from apigw.ops.measured import Certificates, Pools
from apigw.ops.metrics import PROTOCOLS, RESERVED, Metrics
from apigw.ops.series import BUCKETS, METHODS, UPSTREAM_ERRORS
from apigw.policy.auth.series import AuthSeries
from apigw.policy.check.series import CheckSeries
from apigw.policy.denials.series import DenialSeries
from apigw.policy.limits.series import Kept, LimitSeries
from apigw.policy.networks.series import refused_addresses
from apigw.policy.plugins import series as plugin_series
from apigw.policy.plugins.guard import Counts
from apigw.policy.plugins.log import PluginLog
from apigw.policy.split.series import SplitSeries
from apigw.policy.tracing.series import TracingSeries
from apigw.process.page_series import PageSeries
from apigw.shared.page import Page

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_every_family_is_described() -> None:
    """Somebody writes an alert on a metric or label that does not exist, or does not find one that does."""
    metrics = Metrics(CollectorRegistry(), "1.2.3")
    metrics.route("/a").observe(b"GET", 200, 0.1)
    metrics.service("a").observe(0.1)
    metrics.service("a").called(0)
    metrics.service("a").target_is("http://10.0.0.1", True)
    LimitSeries(metrics.registry).retain(Kept.of([limit(endpoint="/a"), limit(endpoint="/b", dry_run=True)]))
    metrics.connections("HTTP/2")
    refused_addresses(metrics.registry)
    CheckSeries(metrics.registry).retain({"opa"})
    DenialSeries(metrics.registry, True)
    auth = AuthSeries(metrics.registry)
    auth.failed("missing")
    auth.introspected("legacy", "active")
    plugins = plugin_series.PluginSeries()
    plugins.shown = {"stamp": plugin_series.Kept(Counts(), PluginLog("stamp", lambda: 0.0), None)}
    metrics.registry.register(plugins)
    SplitSeries(metrics.registry).retain({("orders", "orders-v2")})
    TracingSeries(metrics.registry).count("sent", 1)
    metrics.registry.register(Pools(lambda: [("a", 1, 0)]))
    metrics.registry.register(Certificates(lambda: {"a.test": 0.0}))
    shared = Page.make(1, 1 << 20)
    shared.become(0, 1)
    metrics.registry.register(PageSeries(shared))
    exported = {}
    text = totals.page([totals.packed(metrics, 0)], (), False)[1]
    for family in text_string_to_metric_families(text.decode()):
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        exported[name] = (family.type, labels)
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", (REFERENCE / "metrics.md").read_text(), re.MULTILINE)
    assert {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == exported


def test_the_words_of_the_labels_are_described() -> None:
    """A label's value appears that no page explains."""
    page = (REFERENCE / "metrics.md").read_text()
    for word in (*UPSTREAM_ERRORS, *PROTOCOLS, "OTHER", "unmatched"):
        assert f"`{word}`" in page
    for method in METHODS:
        assert method in page
    assert len(BUCKETS) == len(re.search(r"Bounds of the buckets: (.*)", page)[1].replace(" and", ",").split(","))  # type: ignore[index]
    assert "/health" in RESERVED


ENTRY = Entry(
    0.0, "id", "192.0.2.9", b"GET", b"/a", "/a", 200, "upstream", None, 0, 1, 0.1, "http://a", 0.1, "alice", "HTTP/1.1"
)
OF_A_CALL = Entry(
    0.0,
    "i",
    "192.0.2.9",
    b"POST",
    b"/a",
    "/a",
    200,
    "upstream",
    None,
    0,
    1,
    0.1,
    None,
    0.1,
    None,
    "HTTP/2",
    grpc_status=0,
    tries=1,
    service="orders-v2",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    reason="The token has expired.",
)


def test_every_field_is_described() -> None:
    """A field of the log is in no page, or one that a page names is not in the log."""
    page = (REFERENCE / "access-log.md").read_text()
    fields = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert fields == list(json.loads(JSON().line("t", 0, OF_A_CALL)))


def test_the_example_is_what_is_written() -> None:
    """Whoever writes a parser from the page gets one that fits no line."""
    page = (REFERENCE / "access-log.md").read_text()
    example = re.search(r"^    (203\.0\.113\.9 .*)$", page, re.MULTILINE)
    assert example
    entry = Entry(
        time=0.0,
        request_id="f8a8142009ef33aa4e099c034b112b82",
        client="203.0.113.9",
        method=b"GET",
        target=b"/api/v1/users/7",
        route="/api/v1/users/:id",
        status=200,
        made_by="upstream",
        code=None,
        bytes_in=0,
        bytes_out=61,
        duration=0.0042111,
        upstream="http://127.0.0.1:9001",
        upstream_duration=0.0039021,
        principal="alice",
        protocol="HTTP/1.1",
        user_agent=b"curl/8.5.0",
    )
    written = Combined().line("23/Nov/2026:02:38:02 +0000", 0, entry)
    assert written.decode() == example[1] + "\n"
