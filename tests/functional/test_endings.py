"""Every way in which an exchange can end is counted exactly once, and logged as such."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from support import endings
from support.asking import metrics
from support.client import Client
from support.daemon import Daemon
from support.endings import Behaviour, Ending
from support.samples import counted, value
from support.services import Service
from support.waiting import eventually

from apigw.ops.series import METHODS

from .conftest import Start
from .test_access_log import as_expected

COMBINED = re.compile(
    r'(?P<client>\S+) - (?P<principal>\S+) \[(?P<time>[^\]]+)\] "(?P<method>\S+) (?P<path>\S+) (?P<protocol>\S+)" '
    r'(?P<status>\d{3}) (?P<bytes_out>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)" '
    r'(?P<request_id>\S+) "(?P<route>[^"]*)" (?P<made_by>\S+) (?P<code>\S+) (?P<bytes_in>\d+) '
    r"(?P<duration_ms>[\d.]+) (?P<upstream>\S+) (?P<upstream_ms>[\d.]+|-)"
)


@pytest.fixture(scope="module")
def busy(in_front: Start) -> Iterator[tuple[Daemon, list[Ending]]]:
    """A daemon for which exchanges have ended in every way, and those."""
    service = Service(behaviour := Behaviour())
    daemon = in_front(endings.document(service, access_log={"file": "access.log", "format": "combined"}))
    yield daemon, endings.all_done(daemon, behaviour)
    service.close()


def test_every_ending_is_counted_exactly_once(busy: tuple[Daemon, list[Ending]]) -> None:
    """Each exchange counts once, under its method, route and status; so does each kind of failure."""
    daemon, done = busy
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
def test_promtool_accepts_what_a_busy_daemon_says(busy: tuple[Daemon, list[Ending]]) -> None:
    """Prometheus, which refuses the whole page for one bad line, finds none."""
    daemon, _ = busy
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics(daemon), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_both_formats_say_the_same(busy: tuple[Daemon, list[Ending]]) -> None:
    """A newer Prometheus, which asks for OpenMetrics, sees the same numbers."""
    daemon, _ = busy
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


def test_combined_lines_have_every_field(busy: tuple[Daemon, list[Ending]]) -> None:
    """Each line can be read by the programs that read such logs, and says how its exchange ended."""
    daemon, done = busy
    file = daemon.directory / "access.log"
    eventually(lambda: len(file.read_bytes().splitlines()) >= len(done))
    found = [COMBINED.fullmatch(line) for line in file.read_text("ascii").splitlines()]
    assert all(found)
    noted = [
        tuple(match[name] for name in ("method", "path", "route", "status", "code", "made_by", "protocol"))
        for match in found
        if match
    ]
    expected = [tuple("-" if part is None else str(part) for part in as_expected(ending)) for ending in done]
    assert sorted(noted) == sorted(expected)
