"""One exchange between a client's and a service's connection, both in memory: its bytes, its hooks, its account."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.fake_transport import FakeTransport
from support.http1_server import PEER
from support.logged import failures, logged
from support.upstream import Upstream as Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from apigw import is_compiled
from apigw.config.model import Service as ServiceConfig
from apigw.config.model import Target as TargetConfig
from apigw.contract.bodies import BodyHook
from apigw.contract.exchange import Answer, Exchange, Head, Hook, Outcome, Route, Stage
from apigw.contract.peers import Peers
from apigw.ops.metrics import Metrics
from apigw.proxy import forward
from apigw.proxy.destination import Destination
from apigw.proxy.headers import CopyRules
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Pipeline, Table
from apigw.routing.router import Router
from apigw.routing.trie import Entry
from apigw.upstream.balancing import LeastRequests
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import Refused

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\nsecret"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nsecret"
BUFFERED = 100_000


class Line:
    """A pool of the one connection that the test speaks for."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.waiting: list[Deferred[Any]] = []

    def take(self, careful: bool) -> Any:
        return None if careful else self._service.connection

    def connect(self) -> Deferred[Any]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def close(self) -> None: ...


class Scene:
    """A client, the gateway, and a service."""

    def __init__(
        self,
        *hooks: Hook,
        stages: tuple[Stage, ...] = (),
        buffered: int = BUFFERED,
        on_answer_body: tuple[BodyHook, ...] = (),
    ) -> None:
        self.clock = Clock()
        deadlines = Deadlines(self.clock)
        deadlines.start()
        self.service = Service(self.clock)
        self.line: Any = Line(self.service)
        self.balancer = LeastRequests(lambda: 0.0)
        metrics = Metrics(CollectorRegistry(), "0")
        agent: Any = None
        upstream = Upstream(
            ServiceConfig("main", (TargetConfig("http", "127.0.0.1", 9001),)),
            lambda config: Target(config, self.line),
            self.balancer,
            deadlines,
            agent,
            None,
            metrics.service("main"),
        )
        destination = Destination(
            upstream,
            CopyRules(),
            deadlines,
            30.0,
            60.0,
            60.0,
            None,
            buffered,
            preserve_host=False,
            log_decisions=False,
        )
        stages = (*stages, *forward.stages(destination, Buffers(10 * BUFFERED)))
        route = Route("/a", None, "main", metrics.route("/a"), stages, hooks, on_answer_body=on_answer_body)
        table = Table(Router([Entry("/a", None, route)]), None, route, Peers(), 100, False)
        self.accounted: list[Exchange] = []
        self.pipeline = Pipeline(table, self.clock.seconds, self.accounted.append, lambda request: None)
        factory = ChannelFactory(Settings(), deadlines, self.pipeline.on_request, self._refused, lambda: 0.0)
        self.client = FakeTransport(self.clock).connect(factory.buildProtocol(PEER))

    def ask(self, request: bytes) -> bytes:
        """What the service is sent of it."""
        self.client.deliver(request)
        self.clock.advance(0)
        return self.service.transport.take()

    def answer(self, data: bytes) -> bytes:
        """What the client gets of it."""
        self.service.say(data)
        return self.client.take()

    def _refused(self, refusal: Refused, *_: object) -> Any:
        raise AssertionError(refusal)


class Sign(Hook):
    def run(self, exchange: Exchange, head: Head) -> None:
        head.headers = [*head.headers, (b"x-seen", b"own" if head.own else b"service")]


class Fail(Hook):
    def run(self, exchange: Exchange, head: Head) -> None:
        raise RuntimeError("broken")


class FailOnPiece(BodyHook):
    changes = True

    def __init__(self, late: bool) -> None:
        self._late = late

    def passes(self, exchange: Exchange) -> bool:
        return False

    def piece(self, exchange: Exchange, data: bytes, last: bool) -> bytes | Deferred[bytes]:
        if self._late:
            return fail(RuntimeError("broken"))
        raise RuntimeError("broken")


class Reply(Stage):
    def run(self, exchange: Exchange) -> Outcome:
        return Answer(200, [], b"secret")


def test_hooks_see_the_services_answers() -> None:
    """A route's hooks may change the head of what a service answers, whole or in pieces."""
    for said in (WHOLE, BEGUN):
        scene = Scene(Sign())
        scene.ask(GET)
        assert b"\r\nx-seen: service\r\n" in scene.answer(said)


@pytest.mark.parametrize(
    ("asked", "said"), [(GET, WHOLE), (GET, BEGUN), (UPGRADE, SWITCHED)], ids=["whole", "begun", "101"]
)
def test_an_answer_whose_hook_fails_is_a_500(asked: bytes, said: bytes) -> None:
    """Nothing of it reaches the client, the failure is logged once, and both connections stay in order."""
    scene = Scene(Sign(), Fail())
    scene.ask(asked)
    with logged() as events:
        answered = scene.answer(said)
    assert answered.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answered
    assert b"x-seen" not in answered
    assert failures(events) == ["broken"]
    (exchange,) = scene.accounted
    assert (exchange.status, scene.pipeline.in_flight, scene.balancer.load) == (500, 0, 0)
    assert scene.service.reusable if said == WHOLE else scene.service.transport.aborted
    assert not scene.client.lost
    if said == WHOLE:
        assert scene.ask(GET).startswith(b"GET /a ")


@pytest.mark.parametrize("late", [False, True], ids=["raised", "fired"])
def test_an_answer_whose_body_fails_in_a_hook_is_a_500(late: bool) -> None:
    """The failure is logged once, and the connections serve the next exchange."""
    scene = Scene(on_answer_body=(FailOnPiece(late),))
    for _ in range(2):
        assert scene.ask(GET).startswith(b"GET /a ")
        with logged() as events:
            answered = scene.answer(WHOLE)
        assert answered.startswith(b"HTTP/1.1 500 ")
        assert b"secret" not in answered
        assert failures(events) == ["broken"]
    assert [exchange.status for exchange in scene.accounted] == [500, 500]


def test_the_gateways_own_answer_whose_hook_fails_is_a_500() -> None:
    """It goes out without hooks, and is accounted for once."""
    scene = Scene(Fail(), stages=(Reply(),))
    with logged() as events:
        scene.client.deliver(GET)
    answered = scene.client.take()
    assert answered.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answered
    assert failures(events) == ["broken"]
    assert [exchange.status for exchange in scene.accounted] == [500]


def test_an_exchange_on_an_idle_connection_counts_for_its_target() -> None:
    """From when it has the connection until it is answered."""
    scene = Scene()
    scene.ask(GET)
    assert scene.balancer.load == 1
    scene.answer(WHOLE)
    assert scene.balancer.load == 0


def test_a_client_waits_until_the_service_has_taken_what_was_held() -> None:
    """A held beginning of a body that fills the way to the service keeps the rest of it back."""
    scene = Scene()
    held = b"x" * (BUFFERED - 10)
    scene.ask(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (2 * BUFFERED) + held)
    scene.service.transport.stalled = True
    scene.line.waiting.pop().callback(scene.service.connection)
    scene.clock.advance(0)
    assert not scene.client.reading
    scene.service.transport.drain()
    scene.clock.advance(0)
    assert scene.client.reading


@pytest.mark.parametrize("buffered", [0, 3, BUFFERED], ids=["streamed", "larger than what is buffered", "buffered"])
def test_a_body_that_came_with_its_head_goes_out_with_it(buffered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one write, and what follows it is the next request."""
    scene = Scene(buffered=buffered)
    scene.client.deliver(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody" + GET)
    written: list[bytes] = []
    monkeypatch.setattr(scene.service.transport, "write", written.append)
    scene.line.waiting.pop().callback(scene.service.connection)
    assert [(data.startswith(b"POST /a "), data.endswith(b"\r\n\r\nbody")) for data in written] == [(True, True)]
    scene.answer(WHOLE)
    assert [data.startswith(b"GET /a ") for data in written] == [False, True]
    assert [exchange.request.bytes_received for exchange in scene.accounted] == [4]
