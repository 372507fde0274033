"""What a policy in Python costs a request: one that sets a header, three of them, one that is ``async`` and waits not.

``python contrib/bench/plugins_cost.py`` processes requests in this process, by turns with and without plugins: 20
pairs of each, CPU, with the interval that holds nine tenths of the differences. n is told from ``ops_cost``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

if __name__ == "__main__":
    # A script's own directory comes first on the path, and in it ``profile`` would hide the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from apigw import is_compiled
from apigw.contract.exchange import Answer, Exchange, Outcome, Route, Stage
from apigw.contract.fields import Names
from apigw.contract.peers import Peers
from apigw.contract.view import View
from apigw.contract.view_shared import REQUEST, Bodies, Shared
from apigw.ops.metrics import Metrics
from apigw.policy.plugins.guard import Counts, Guard
from apigw.policy.plugins.log import PluginLog
from apigw.policy.plugins.stage import Call
from apigw.proxy.headers import CopyRules, upstream_fields
from apigw.proxy.pipeline import Pipeline, Table
from apigw.routing.router import Router
from apigw.routing.trie import Entry
from apigw.wire.headers import Headers
from apigw.wire.request import Request
from bench.ops_cost import USUAL_N

PAIRS = 20
REQUESTS = 20_000
MOST = {"one": 0.03, "three": 0.08, "async": 0.1}
"""n that each may cost."""
HEADERS = [
    (b"user-agent", b"bench/1.0"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip"),
    (b"authorization", b"Bearer aaaa.bbbb.cccc"),
    (b"content-type", b"application/json"),
    (b"cookie", b"a=b"),
]


class Stamp:
    """Sets a header, as most plugins do."""

    schema: ClassVar[dict[str, Any]] = {}

    def __init__(self, header: str) -> None:
        self.header = header

    def on_request(self, view: View) -> None:
        view.request.set(self.header, "acme")


class AsyncStamp(Stamp):
    async def on_request(self, view: View) -> None:  # type: ignore[override]  # it awaits nothing
        view.request.set(self.header, "acme")


class Sent(Stage):
    """Makes the fields that a service would get, and answers."""

    def __init__(self) -> None:
        self._rules = CopyRules()
        self._answer = Answer(200, [(b"content-length", b"0")])
        self.fields: Headers = []
        """Those of the last request."""

    def run(self, exchange: Exchange) -> Outcome:
        request, withheld, sent = exchange.request, exchange.withheld, exchange.sent
        self.fields = upstream_fields(request, False, exchange.id, (), self._rules, withheld, sent)
        return self._answer


def pipeline(plugins: list[Any], sent: Sent | None = None) -> Pipeline:
    clock = Clock()
    stages: list[Stage] = []
    for plugin in plugins:
        guard = Guard(False, 1.0, Counts(), PluginLog("bench", clock.seconds), clock)
        names = Names(frozenset(), frozenset())
        shared = Shared("bench", names, None, lambda identifier: None, Bodies(), True)
        stages.append(Call(guard, shared, plugin.on_request, "on_request", REQUEST))
    series = Metrics(CollectorRegistry(), "bench").route("/a")
    route = Route("/a", None, None, series, (*stages, sent or Sent()))
    table = Table(Router([Entry("/a", None, route)]), None, route, Peers(), 1 << 20, False)
    return Pipeline(table, clock.seconds, lambda _: None, lambda _: None)


def microseconds(pipeline: Pipeline) -> float:
    """CPU of one request."""
    stream: Any = SimpleNamespace(peer=b"203.0.113.9", secure=False, respond=lambda *_: None)
    began = time.process_time()
    for _ in range(REQUESTS):
        request = Request(stream, b"GET", b"/a", b"/a", b"", b"a.test", HEADERS, b"HTTP/1.1", 0)
        request.body_complete = True
        pipeline.on_request(request)
    return (time.process_time() - began) / REQUESTS * 1e6


def differences(plugins: list[Any]) -> list[float]:
    """Of each pair, sorted."""
    without, with_ = pipeline([]), pipeline(plugins)
    pairs = []
    for number in range(PAIRS):
        first, second = (without, with_) if number % 2 else (with_, without)
        one, other = microseconds(first), microseconds(second)
        pairs.append(other - one if number % 2 else one - other)
    return sorted(pairs)


def main() -> int:
    """0 when the promise is kept, 1 when it is not."""
    kinds: dict[str, list[Any]] = {
        "one": [Stamp("X-Tenant")],
        "three": [Stamp("X-Tenant"), Stamp("X-Plan"), Stamp("X-Region")],
        "async": [AsyncStamp("X-Tenant")],
    }
    print("compiled" if is_compiled() else "plain Python", f"n = {USUAL_N} µs; median of {PAIRS} pairs [5 %, 95 %]")
    kept = True
    for name, plugins in kinds.items():
        found = differences(plugins)
        median, low, high = found[PAIRS // 2], found[1], found[-2]
        share = median / USUAL_N
        kept &= share <= MOST[name]
        print(f"{name:6} {median:6.2f} µs [{low:.2f}, {high:.2f}]  {share:.3f} n, may be {MOST[name]} n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
