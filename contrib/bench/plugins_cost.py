"""What a policy in Python costs a request: one that sets a header, three of them, one that is ``async`` and waits not.

Requests are processed in this process, by turns with and without plugins: 20 pairs of each, CPU, with the interval
that holds nine tenths of the differences. And for how long an answer that is compressed holds the reactor.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from apigw import is_compiled
from apigw.contract.exchange import Answer, Exchange, Outcome, Route, Stage
from apigw.contract.fields import Names
from apigw.contract.peers import Peers
from apigw.contract.view import View
from apigw.contract.view_shared import REQUEST, Bodies, Shared
from apigw.ops.metrics import Metrics
from apigw.plugins.compression.encoders import CODINGS, MISSING
from apigw.plugins.compression.plugin import Compression, Stream
from apigw.policy.plugins.guard import Counts, Guard
from apigw.policy.plugins.log import PluginLog
from apigw.policy.plugins.stage import Call
from apigw.proxy.headers import CopyRules, upstream_fields
from apigw.proxy.pipeline import Pipeline, Table
from apigw.routing.router import Router
from apigw.routing.trie import Entry
from apigw.wire.headers import Headers
from apigw.wire.request import Request
from bench.figures import Verdict
from bench.machine import MIB
from bench.ops_cost import USUAL_N, nginx
from bench.silent import Silent

PAIRS = 20
REQUESTS = 20_000
PIECE = 64 * 1024
"""Bytes of a body that come at once, at most."""
MOST_HELD = 2.0
"""Milliseconds for which compression may hold the reactor."""
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
        shared = Shared("bench", names, None, lambda identifier: None, Bodies(), late=True, keeps=False)
        stages.append(Call(guard, shared, plugin.on_request, "on_request", REQUEST))
    series = Metrics(CollectorRegistry(), "bench").route("/a")
    route = Route("/a", None, None, series, (*stages, sent or Sent()))
    table = Table(Router([Entry("/a", None, route)]), None, route, Peers(), 1 << 20, False)
    return Pipeline(table, clock.seconds, lambda _: None, lambda _: None)


def microseconds(pipeline: Pipeline) -> float:
    """CPU of one request."""
    stream = Silent()
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


KINDS: dict[str, tuple[list[Any], float]] = {
    "one plugin that sets a header": ([Stamp("X-Tenant")], 0.03),
    "three of them": ([Stamp("X-Tenant"), Stamp("X-Plan"), Stamp("X-Region")], 0.08),
    "one that is async, and does not wait": ([AsyncStamp("X-Tenant")], 0.1),
}
"""Plugins, and what they may cost, in n."""


def held(coding: str) -> float:
    """Milliseconds of CPU: the longest turn of the reactor that a MiB takes, of text, of noise, or of a mixture."""
    turns: deque[Callable[[], object]] = deque()
    longest = 0.0

    def timed(run: Callable[[], Any]) -> Any:
        nonlocal longest
        began = time.thread_time()
        result = run()
        longest = max(longest, time.thread_time() - began)
        return result

    def later(seconds: float, run: Callable[..., object], *arguments: object) -> None:
        turns.append(partial(run, *arguments))

    context: Any = SimpleNamespace(seconds=time.perf_counter, later=later)
    plugin = Compression()
    plugin.context = context
    chance = random.Random(1)
    noise = chance.randbytes(MIB)
    text = b" ".join(b'{"id": %d, "name": "%x"}' % (each, each * 7919) for each in range(MIB // 24))[:MIB]
    for body in (text, noise, bytes(byte % 4 + 97 for byte in noise), bytes(MIB)):
        view: Any = SimpleNamespace(state={"stream": Stream(CODINGS[coding]())})
        for at in range(0, MIB, PIECE):
            piece, last = body[at : at + PIECE], at + PIECE >= MIB

            def begin() -> Any:
                result = plugin.on_answer_body(view, piece, last)  # noqa: B023
                return result if isinstance(result, bytes) else ensureDeferred(result)  # type: ignore[arg-type]

            timed(begin)
            while turns:
                timed(turns.popleft())
    return longest * 1000


def check(say: Callable[[str], None]) -> list[Verdict]:
    """What plugins cost, here and now, and for how long compression holds the reactor."""
    if not is_compiled():
        say("the gateway is plain Python here: plugins cost three times as much")
    unit = nginx()
    if unit is None:
        say(f"nginx or wrk is not installed: n is taken to be {USUAL_N} µs")
        unit = USUAL_N
    verdicts = []
    for name, (plugins, most) in KINDS.items():
        say(f"{name}: {PAIRS} pairs")
        found = differences(plugins)
        median, low, high = found[PAIRS // 2], found[1], found[-2]
        seen = f"{median / unit:.3f} n, {median:.2f} µs [{low:.2f}, {high:.2f}] of {unit:.1f}"
        verdicts.append(Verdict(name, median <= most * unit, seen, f"at most {most} n"))
    for coding in CODINGS.keys() - MISSING.keys():
        longest = min(held(coding) for _ in range(3))
        verdicts.append(
            Verdict(f"{coding} holds the reactor", longest <= MOST_HELD, f"{longest:.2f} ms", f"at most {MOST_HELD} ms")
        )
    return verdicts
