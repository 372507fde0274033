"""Requests that are sent again, between a client and the targets of a service, all in memory."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.fake_transport import FakeTransport
from support.http1_server import PEER
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from apigw import is_compiled
from apigw.config.model import CircuitBreaker, Retry
from apigw.config.model import Service as ServiceConfig
from apigw.config.model import Target as TargetConfig
from apigw.contract.exchange import Exchange, Route
from apigw.contract.peers import Peers
from apigw.ops.metrics import Metrics
from apigw.proxy import forward
from apigw.proxy.destination import Destination
from apigw.proxy.headers import CopyRules
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Pipeline, Table
from apigw.routing.router import Router
from apigw.routing.trie import Entry
from apigw.shared.tally import Tally
from apigw.upstream.balancing import RoundRobin
from apigw.upstream.circuit import Circuit
from apigw.upstream.retries import Budget, Retries
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.agent import http1_pool
from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import Refused
from apigw.wire.pool import PoolSettings

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
CALL = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 4\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
NO_CALL = b"HTTP/1.1 200 OK\r\ngrpc-status: 14\r\nContent-Length: 0\r\n\r\n"


class Machine:
    """A target: what is connected to it, and whether anybody may."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.refuses = False
        self.lines: list[FakeTransport] = []
        self.made = 0

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.refuses:
            return fail(ConnectionRefusedError())
        self.made += 1
        protocol = factory.buildProtocol(None)
        self.lines.append(FakeTransport(self.clock).connect(protocol))
        return succeed(protocol)

    def requests(self) -> list[tuple[FakeTransport, bytes]]:
        """What has arrived since this was last asked, and where."""
        return [(line, taken) for line in self.lines if (taken := line.take())]


class Scene:
    """A client, the gateway, and a service with ``targets``, whose waits are all of their greatest length."""

    def __init__(
        self,
        retry: Retry | None = None,
        targets: int = 2,
        breaker: CircuitBreaker | None = None,
        timeout: float = 30.0,
        retries: bool = True,
    ) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.deadlines.start()
        self.machines = [Machine(self.clock) for _ in range(targets)]
        self.metrics = Metrics(CollectorRegistry(), "0")
        series = self.metrics.service("main")
        self.random: Callable[[], float] = lambda: 1.0
        self.budget = Budget(0.2, Tally(), Tally())
        self.circuit = None if breaker is None else Circuit("main", breaker, self.clock, series, None)
        agent: Any = None
        self.upstream = Upstream(
            ServiceConfig("main", tuple(TargetConfig("http", "a", port) for port in range(targets))),
            self._target,
            RoundRobin(),
            self.deadlines,
            agent,
            self.circuit,
            series,
            Retries(retry or Retry(), self.budget, lambda: self.random()) if retries else None,
        )
        times = (timeout, 60.0, 60.0)
        destination = Destination(self.upstream, CopyRules(), self.deadlines, *times, None, 65536, False, False)
        stages = forward.stages(destination, Buffers(1_000_000))
        route = Route("/a", None, "main", self.metrics.route("/a"), stages)
        table = Table(Router([Entry("/a", None, route)]), None, route, Peers(), 1000, False)
        self.accounted: list[Exchange] = []
        self.tries: list[int] = []
        self.pipeline = Pipeline(table, self.clock.seconds, self._account, lambda request: None)
        self.channels = ChannelFactory(Settings(), self.deadlines, self.pipeline.on_request, self._refused, lambda: 0.0)
        self.client = self.connect()

    def connect(self) -> FakeTransport:
        return FakeTransport(self.clock).connect(self.channels.buildProtocol(PEER))

    def ask(self, request: bytes = GET) -> None:
        self.client.deliver(request)
        self.clock.advance(0)

    def answer(self, data: bytes) -> tuple[int, bytes]:
        """The one target that was asked answers. Which it was, and what it was asked."""
        (asked,) = [(number, each) for number, machine in enumerate(self.machines) for each in machine.requests()]
        number, (line, request) = asked
        line.deliver(data)
        self.clock.advance(0)
        return number, request

    def wait(self, seconds: float = 0.3) -> None:
        for _ in range(max(1, round(seconds * 20))):
            self.clock.advance(0.05)

    def status(self) -> int:
        """Of what the client has got, or 0."""
        got = self.client.take()
        assert got.count(b"HTTP/1.1 ") <= 1, got
        return int(got[9:12] or 0)

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"service": "main", **labels})

    def retried(self, why: str) -> float | None:
        return self.count("gateway_upstream_retries_total", reason=why)

    def over(self) -> bool:
        """Nothing is left of any exchange."""
        return not (self.pipeline.in_flight or self.budget.in_flight.own or self.budget.retrying.own)

    def _account(self, exchange: Exchange) -> None:
        relay: Any = exchange.relay
        self.tries.append(0 if relay.tries is None else relay.tries.number)
        self.accounted.append(exchange)

    def _target(self, config: TargetConfig) -> Target:
        machine: Any = self.machines[config.port]
        return Target(config, http1_pool(self.deadlines, b"http", machine, PoolSettings()))

    def _refused(self, refusal: Refused, *_: object) -> Any:
        raise AssertionError(refusal)


@pytest.mark.parametrize("request_", [GET, POST], ids=["without body", "with body"])
def test_a_failed_answer_is_asked_for_elsewhere(request_: bytes) -> None:
    """After a wait the same request goes to another target; the client sees one answer."""
    scene = Scene(Retry(methods=("all",)))
    scene.ask(request_)
    first, asked = scene.answer(BUSY)
    assert (scene.status(), scene.pipeline.in_flight) == (0, 1)
    scene.wait(0.1)
    second, again = scene.answer(OK)
    assert (first, second) == (0, 1)
    assert again == asked.replace(b"host: a:0", b"host: a:1")
    assert (scene.status(), scene.tries, scene.retried("503"), scene.over()) == (200, [2], 1, True)


def test_the_wait_before_a_retry() -> None:
    """It is up to 25, 75, 175 and 250 ms, whatever chance says."""
    scene = Scene(Retry(tries=6), targets=1)
    scene.random = lambda: 0.999
    scene.ask()
    waits = []
    for _ in range(5):
        scene.answer(BUSY)
        began = scene.clock.seconds()
        calls: Any = scene.clock.getDelayedCalls()
        (wait,) = [call.getTime() - began for call in calls if "_over" in str(call.func)]
        waits.append(round(wait, 3))
        scene.clock.advance(wait)
    assert waits == [0.025, 0.075, 0.175, 0.25, 0.25]
    scene.random = lambda: 0.0
    scene.answer(BUSY)
    assert (scene.status(), scene.tries) == (503, [6])


ANSWERS = {
    "short": (BUSY, True),
    "in pieces": (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\n", True),
    "chunked": (b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n", True),
    "long": (b"HTTP/1.1 503 Busy\r\nContent-Length: 65537\r\n\r\nlong", False),
    "to its end": (b"HTTP/1.1 503 Busy\r\n\r\nlong", False),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_failed_answer_is_discarded(kind: str) -> None:
    """A short one is read to its end, and its connection carries the next request; a long one ends the connection."""
    said, kept = ANSWERS[kind]
    scene = Scene(targets=1)
    scene.ask()
    scene.answer(said)
    machine = scene.machines[0]
    rest = {"in pieces": [b"bu", b"sy"], "chunked": [b"4\r\nbusy\r\n", b"0\r\n\r\n"], "to its end": [b"x" * 65536]}
    for piece in rest.get(kind, []):
        machine.lines[0].deliver(piece)
        scene.clock.advance(0)
    assert machine.lines[0].aborted is not kept
    scene.wait(0.1)
    scene.answer(OK)
    assert (scene.status(), machine.made, scene.over()) == (200, 1 if kept else 2, True)


def test_a_failed_answer_that_drips() -> None:
    """It holds its connection for no longer than one that stalls."""
    scene = Scene()
    scene.ask()
    scene.answer(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\n")
    line = scene.machines[0].lines[0]
    for at, aborted in ((0.4, False), (0.8, False), (1.2, True)):
        scene.wait(0.4)
        line.deliver(b"x")
        scene.clock.advance(0)
        assert line.aborted is aborted, at


def test_a_failed_answer_that_does_not_end() -> None:
    """Its connection is closed; the retry does not wait for it."""
    scene = Scene()
    scene.ask()
    scene.answer(ANSWERS["in pieces"][0])
    scene.wait(0.1)
    scene.answer(OK)
    assert scene.status() == 200
    scene.wait(1.2)
    assert scene.machines[0].lines[0].aborted


UNBUFFERED = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\nbody"
STREAMED = b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"


@pytest.mark.parametrize(
    ("retry", "request_", "said"),
    [
        pytest.param(Retry(), POST, BUSY, id="method"),
        pytest.param(Retry(methods=("PUT",)), GET, BUSY, id="method not named"),
        pytest.param(Retry(on=("connect", 502)), GET, BUSY, id="status not named"),
        pytest.param(Retry(), GET, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", id="status not in the default"),
        pytest.param(Retry(), UNBUFFERED, BUSY, id="large body"),
        pytest.param(Retry(), STREAMED, BUSY, id="body of unknown length"),
        pytest.param(Retry(), CALL, NO_CALL, id="call"),
    ],
)
def test_what_is_not_sent_again(retry: Retry, request_: bytes, said: bytes) -> None:
    """The client gets the service's answer as it is, at once."""
    scene = Scene(retry)
    scene.ask(request_)
    scene.answer(said)
    assert scene.status() == int(said[9:12])
    assert sum(machine.made for machine in scene.machines) == 1
    scene.client.disconnect()
    scene.wait()
    assert (scene.tries, scene.over()) == ([1], True)


@pytest.mark.parametrize(
    ("methods", "request_", "sent_again"),
    [(("idempotent", "POST"), POST, True), (("all",), POST, True), (("POST",), GET, False), (("GET",), GET, True)],
    ids=["and another", "all", "another", "named"],
)
def test_methods(methods: tuple[str, ...], request_: bytes, sent_again: bool) -> None:
    """Those that are named are repeated, and no others."""
    scene = Scene(Retry(methods=methods))
    scene.ask(request_)
    scene.answer(BUSY)
    assert (scene.status() == 0) is sent_again


def test_a_call_that_is_unavailable() -> None:
    """An answer of gRPC without a body counts as 503 if its ``grpc-status`` is 14."""
    scene = Scene(Retry(methods=("POST",)))
    scene.ask(CALL)
    scene.answer(NO_CALL)
    scene.wait(0.1)
    scene.answer(NO_CALL.replace(b"14", b"0"))
    assert (scene.status(), scene.retried("503"), scene.over()) == (200, 1, True)


def test_no_connection() -> None:
    """One other target is free for each request, whatever the method; more are retries."""
    scene = Scene(Retry(on=("connect",), tries=3), targets=3)
    scene.machines[0].refuses = scene.machines[1].refuses = True
    scene.ask(POST)
    scene.wait(0.1)
    assert scene.answer(OK)[0] == 2
    assert (scene.status(), scene.tries, scene.retried("connect"), scene.over()) == (200, [2], 2, True)
    scene.machines[2].refuses = True
    for line in scene.machines[2].lines:
        line.disconnect()
    scene.ask()
    scene.wait()
    assert (scene.status(), scene.tries, scene.over()) == (502, [2, 3], True)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 O"], ids=["silent", "within the head"])
def test_a_connection_that_is_lost(said: bytes) -> None:
    """Before the head of the answer is complete, another target may be asked; the same one only as a retry."""
    scene = Scene(targets=1)
    scene.ask()
    scene.answer(said)
    scene.machines[0].lines[0].disconnect()
    scene.wait(0.1)
    scene.answer(OK)
    assert (scene.status(), scene.tries, scene.retried("reset"), scene.over()) == (200, [2], 1, True)


def test_an_answer_that_is_lost_after_its_head() -> None:
    """Something of it has gone to the client: it is cut, and nothing is sent again."""
    scene = Scene()
    scene.ask()
    scene.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo")
    scene.machines[0].lines[0].disconnect()
    scene.wait()
    assert (scene.client.lost or scene.client.aborted, scene.tries, scene.over()) == (True, [1], True)


def test_an_invalid_answer() -> None:
    """It counts as 502."""
    scene = Scene()
    scene.ask()
    scene.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
    scene.wait(0.1)
    scene.answer(OK)
    assert (scene.status(), scene.retried("502")) == (200, 1)


def test_a_try_that_times_out() -> None:
    """It is cancelled after its time, and counts as 504; after the head of an answer the route's time applies."""
    scene = Scene(Retry(per_try_timeout=1.0), timeout=5.0)
    scene.ask()
    scene.wait(1.2)
    assert scene.machines[0].lines[0].aborted
    (line, _), *_ = scene.machines[1].requests()
    line.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    scene.wait(3.0)
    line.deliver(b"ok")
    assert (scene.status(), scene.tries, scene.retried("504"), scene.over()) == (200, [2], 1, True)


def test_all_tries_have_the_time_of_the_route() -> None:
    """The last one gets what is left of it, and none begins after it."""
    scene = Scene(Retry(per_try_timeout=1.0, tries=10), timeout=2.5)
    scene.ask()
    scene.wait(2.4)
    assert (scene.status(), scene.pipeline.in_flight) == (0, 1)
    scene.wait(0.4)
    assert (scene.status(), scene.tries, scene.over()) == (504, [3], True)


def test_a_client_that_leaves_while_its_request_waits() -> None:
    """Nothing is sent any more, and nothing is left of it."""
    scene = Scene()
    scene.ask()
    scene.answer(BUSY)
    scene.client.disconnect()
    scene.wait()
    assert (scene.tries, scene.over(), scene.machines[1].made) == ([2], True, 0)


def test_each_try_counts_for_the_circuit() -> None:
    """A circuit that opens lets no retry pass: the client gets the last answer."""
    scene = Scene(Retry(tries=5), breaker=CircuitBreaker(min_requests=2))
    scene.ask()
    scene.answer(BUSY)
    scene.wait(0.1)
    scene.answer(BUSY)
    assert (scene.status(), scene.tries, scene.over()) == (503, [2], True)
    assert scene.circuit is not None
    assert scene.circuit.status().failures == 0, "since it opened"
    assert (scene.count("gateway_circuit_breaker_transitions_total", to="open")) == 1
    scene.ask()
    assert (scene.status(), sum(machine.made for machine in scene.machines)) == (503, 2)


def test_a_budget_for_retries() -> None:
    """With 64 requests in flight and all targets failing, the service sees 1.25 times the requests of the clients."""
    scene = Scene(Retry(tries=3))
    random = Random(14)
    scene.random = random.random
    clients = [scene.connect() for _ in range(64)]
    asked = seen = answered = 0
    waiting: list[tuple[float, FakeTransport]] = []
    for client in clients:
        client.deliver(GET)
        asked += 1
    for _ in range(300):
        scene.clock.advance(0.005)
        now = scene.clock.seconds()
        for machine in scene.machines:
            for line, requests in machine.requests():
                seen += requests.count(b"GET ")
                waiting.append((now + 0.02 * random.random(), line))
        due = [line for at, line in waiting if at <= now]
        waiting = [each for each in waiting if each[0] > now]
        for line in due:
            line.deliver(BUSY)
        for client in clients:
            if client.take():
                answered += 1
                client.deliver(GET)
                asked += 1
    assert answered > 2000
    assert asked * 1.02 < seen <= 1.25 * asked
    assert scene.budget.retrying.own <= 12


SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize("said", [SWITCHED, EVENTS], ids=["tunnel", "events"])
def test_what_lasts_does_not_count_for_the_budget(said: bytes) -> None:
    """A handshake may be repeated; once it lasts, it is no request in flight."""
    scene = Scene()
    scene.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"))
    scene.answer(BUSY)
    scene.wait(0.1)
    scene.answer(said)
    assert scene.status() == int(said[9:12])
    assert (scene.budget.in_flight.own, scene.budget.retrying.own, scene.pipeline.in_flight) == (0, 0, 1)
    scene.client.disconnect()
    scene.wait()
    assert (scene.tries, scene.over()) == ([2], True)


def test_three_retries_are_always_allowed() -> None:
    """However few requests are in flight; the fourth is denied, and its client gets the answer."""
    scene = Scene()
    clients = [scene.connect() for _ in range(4)]
    for client in clients:
        client.deliver(GET)
    scene.clock.advance(0)
    for machine in scene.machines:
        for line, _ in machine.requests():
            line.deliver(BUSY)
    scene.clock.advance(0)
    assert [bool(client.take()) for client in clients].count(True) == 1
    assert scene.count("gateway_upstream_retries_denied_total") == 1
