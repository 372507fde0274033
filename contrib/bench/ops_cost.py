"""What metrics, access log and request ids cost together, of which only the log can be switched off.

``python contrib/bench/ops_cost.py`` times, in this process, the very calls that every exchange makes: CPU of all
threads, so that the log's writing is in it. nginx is measured beside them, and the sum is told in n.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # A script's own directory comes first on the path, and in it ``profile`` would hide the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from apigw.config.model import Service
from apigw.config.model import Target as TargetConfig
from apigw.contract.exchange import Exchange, Route, request_id
from apigw.contract.peers import Peers
from apigw.ops.access_log import AccessLog
from apigw.ops.metrics import Metrics
from apigw.proxy.accounting import Accounting
from apigw.proxy.destination import Destination
from apigw.proxy.headers import CopyRules
from apigw.proxy.pipeline import Pipeline, Table
from apigw.proxy.relay import Relay
from apigw.routing.router import Router
from apigw.upstream.build import build
from apigw.wire.deadlines import Deadlines
from apigw.wire.request import Request
from bench.silent import Silent

TIMES = 100_000
MOST = 0.5
"""n that all of it may cost."""
USUAL_N = 17.5
"""Microseconds of n, where it cannot be measured."""


class Ticking(Clock):
    """The real time, and nothing that is called later: the log is flushed by its size."""

    def seconds(self) -> float:
        return time.time()


def exchange(metrics: Metrics) -> Exchange:
    """One that a service has answered, as at its end."""
    stream = Silent()
    headers = [(b"user-agent", b"bench"), (b"accept", b"*/*")]
    path = b"/api/v1/users/42"
    pattern = "/api/v1/users/:id"
    request = Request(stream, b"GET", path, path, b"", b"a", headers, b"HTTP/1.1", 0)
    unused: Any = None
    deadlines = Deadlines(Ticking())
    service = Service("users", (TargetConfig("http", "127.0.0.1", 9001),))
    upstream = build(service, unused, deadlines, metrics.service("users"))
    destination = Destination(upstream, CopyRules(), deadlines, 30.0, 3600.0, 3600.0, None, 0, False, False)
    route = Route(pattern, None, "users", metrics.route(pattern), ())
    table = Table(Router([]), None, route, Peers(), 100, False)
    pipeline = Pipeline(table, deadlines.seconds, lambda _: None, lambda _: None)
    ended = Exchange(pipeline, request, Peers(), deadlines.seconds())
    relay = Relay(ended, destination)
    ended.route, ended.status = route, 200
    relay.target = upstream.targets[0]
    relay.sent_at, relay.upstream_ended_at = ended.started_at + 0.0001, ended.started_at + 0.002
    request.started, request.bytes_sent = True, 60
    return ended


def microseconds(call: Callable[[], object], finish: Callable[[], object] = lambda: None) -> float:
    """CPU of one call; ``finish`` ends the series, and is part of it."""
    began = time.process_time()
    for _ in range(TIMES):
        call()
    finish()
    return (time.process_time() - began) / TIMES * 1e6


def best(measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(3))


def measured(file: Path) -> dict[str, float]:
    """Microseconds by what they are spent on."""
    metrics = Metrics(CollectorRegistry(), "bench")
    one = exchange(metrics)
    without = Accounting(metrics, None, time.time, time.time)

    def logged() -> float:
        log = AccessLog(str(file), "json", Ticking(), lambda call, *given: call(*given), print, max_pending=1 << 32)
        log.start()
        both = Accounting(metrics, log, time.time, time.time)

        def stop() -> None:
            stopped = log.stop()
            while not stopped.called:
                time.sleep(0.001)

        return microseconds(lambda: both.exchange_ended(one), stop)

    headers = one.request.headers
    nothing = best(lambda: microseconds(lambda: None))
    counting = best(lambda: microseconds(lambda: without.exchange_ended(one))) - nothing
    logging = best(logged) - nothing - counting
    naming = best(lambda: microseconds(lambda: request_id(headers))) - nothing
    return {"metrics": counting, "access log": logging, "request id": naming}


def nginx() -> float | None:
    """Microseconds of n here and now, by the bench itself."""
    if not (shutil.which("nginx") and shutil.which("wrk")):
        return None
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "samples.json"
        bench = [sys.executable, str(Path(__file__).with_name("bench.py")), "compare", "--only", "nginx"]
        subprocess.run(
            [*bench, "--rounds", "1", "--seconds", "3", "--json", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
        if not file.exists():
            return None
        (sample,) = json.loads(file.read_text())["compare"]["samples"]
        return float(sample["cpu"] / sample["requests"] * 1e6)


def main() -> int:
    """0 when the promise is kept, 1 when it is not."""
    with tempfile.TemporaryDirectory() as directory:
        costs = measured(Path(directory) / "access.log")
    unit = nginx()
    if unit is None:
        print(f"nginx or wrk is not installed: n is taken to be {USUAL_N} µs")
        unit = USUAL_N
    for name, cost in costs.items():
        print(f"{name:<12} {cost:6.2f} µs  {cost / unit:.3f} n")
    total = sum(costs.values())
    kept = total <= MOST * unit
    print(f"{'kept' if kept else 'BROKEN'}: together {total:.2f} µs, {total / unit:.3f} n; at most {MOST} n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
