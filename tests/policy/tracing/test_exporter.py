"""How spans reach a collector, over a clock, and what becomes of them where it does not take them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.collector import values
from support.logged import logged
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

from apigw.ops.tracing.batches import MOST_BATCH, MOST_WAITING
from apigw.ops.tracing.protobuf import length_delimited
from apigw.policy.tracing.exporter import AT_A_TIME, STOP_TIMEOUT, TIMEOUT, Exporter

_SPAN = b"\x0a\x10" + b"t" * 16 + b"\x12\x08" + b"s" * 8
SPAN = length_delimited(b"\x12", _SPAN)
LONG = length_delimited(b"\x12", _SPAN + b"\x2a\xe8\x07" + b"n" * 1000)


class Response:
    """An answer of a collector, as treq sees it. ``whole``: its body ends as it should."""

    def __init__(self, code: int, headers: dict[str, str], whole: bool = True) -> None:
        self.code = code
        self.headers = Headers({name: [value] for name, value in headers.items()})
        self.length = 0
        self._whole = whole

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(self)
        protocol.connectionLost(Failure(ResponseDone() if self._whole else ConnectionResetError()))

    def loseConnection(self) -> None: ...


@implementer(IAgent)
class Peer:
    """What the exporter asks: each request waits until the test answers it."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, Headers, bytes]] = []
        self.waiting: list[Deferred[Any]] = []
        self.cancelled = 0

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        written: list[bytes] = []

        class Consumer:
            write = staticmethod(written.append)

        bodyProducer.startProducing(Consumer())
        self.asked.append((uri, headers, b"".join(written)))
        answer: Deferred[Any] = Deferred(self._cancel)
        self.waiting.append(answer)
        return answer

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    def answer(self, code: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.waiting.pop(0).callback(Response(code, named))

    def fail(self) -> None:
        self.waiting.pop(0).errback(ConnectionRefusedError("nobody listens"))


class Scene:
    def __init__(self) -> None:
        self.clock: Any = Clock()
        self.peer = Peer()
        self.counted: Counter[str] = Counter()
        self.exporter = Exporter(self.peer, self.clock, self.count)
        self.exporter.use("http://c:4318/v1/traces", ((b"X-Key", b"secret"),), "edge")

    def count(self, result: str, spans: int) -> None:
        self.counted[result] += spans

    def add(self, spans: int, span: bytes = SPAN) -> None:
        for _ in range(spans):
            self.exporter.batches.add(span)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_the_collector_gets(scene: Scene) -> None:
    """After a second, in one request: who sends it, and the spans."""
    scene.add(3)
    assert scene.peer.asked == []
    scene.clock.advance(1.0)
    ((uri, headers, body),) = scene.peer.asked
    assert uri == b"http://c:4318/v1/traces"
    assert headers.getRawHeaders("content-type") == ["application/x-protobuf"]
    assert headers.getRawHeaders("x-key") == ["secret"]
    assert headers.getRawHeaders("accept-encoding") == ["identity"]
    (of,) = ExportTraceServiceRequest.FromString(body).resource_spans
    told = values(of.resource.attributes)
    assert told["service.name"] == "edge"
    assert {"service.version", "service.instance.id", "host.name"} < told.keys()
    (scope,) = of.scope_spans
    assert (scope.scope.name, len(scope.spans)) == ("apigw", 3)
    scene.peer.answer()
    assert scene.counted == {"sent": 3}
    scene.clock.advance(1.0)
    assert len(scene.peer.asked) == 1


def test_complete_batches_do_not_wait(scene: Scene) -> None:
    """They are sent at once, so many at a time."""
    scene.add((AT_A_TIME + 2) * MOST_BATCH // len(LONG), LONG)
    assert len(scene.peer.asked) == AT_A_TIME
    scene.peer.answer()
    assert len(scene.peer.asked) == AT_A_TIME + 1


@pytest.mark.parametrize(("headers", "pause"), [({}, 1.0), ({"retry_after": "7"}, 7.0), ({"retry_after": "Mon"}, 1.0)])
def test_busy_collectors(scene: Scene, headers: dict[str, str], pause: float) -> None:
    """Statuses that OTLP names mean: send it again, after Retry-After, or a pause."""
    scene.add(1)
    scene.clock.advance(1.0)
    scene.peer.answer(503, **headers)
    scene.clock.advance(pause - 0.1)
    assert len(scene.peer.asked) == 1
    scene.clock.advance(0.1)
    first, second = scene.peer.asked
    assert first[2] == second[2]
    scene.peer.answer()
    assert scene.counted == {"sent": 1}


def test_refusals(scene: Scene) -> None:
    """What a collector refuses is not sent again; it is counted, and the log says why, without the key."""
    scene.add(2)
    with logged() as events:
        scene.clock.advance(1.0)
        scene.peer.answer(401)
    assert scene.counted == {"refused": 2}
    (told,) = [event for event in events if "refused" in event.get("log_format", "")]
    assert "401" in told["why"]
    assert "secret" not in str(told)


def test_dead_collectors(scene: Scene) -> None:
    """The pauses grow, the log says it once; a bound of spans waits, the newest, and goes when it is back."""
    with logged() as events:
        scene.add(1)
        tries = 0
        for _ in range(600):
            scene.clock.advance(0.5)
            while scene.peer.waiting:
                tries += 1
                scene.peer.fail()
            scene.add(20, LONG)
            assert scene.exporter.batches.waiting <= MOST_WAITING
    assert 12 < tries < 20
    assert len([event for event in events if "cannot be reached" in event.get("log_format", "")]) == 1
    assert scene.counted["dropped"] > 5000
    with logged() as events:
        for _ in range(100):
            scene.clock.advance(0.5)
            while scene.peer.waiting:
                scene.peer.answer()
    assert scene.counted["sent"] + scene.counted["dropped"] == 600 * 20 + 1
    assert scene.counted["sent"] > 3000
    assert len([event for event in events if "takes spans again" in event.get("log_format", "")]) == 1


def test_silent_collectors(scene: Scene) -> None:
    """Whoever does not answer in time has failed."""
    scene.add(1)
    scene.clock.advance(1.0)
    scene.clock.pump([1.0] * int(TIMEOUT))
    assert scene.peer.cancelled == 1
    scene.clock.advance(1.0)
    assert len(scene.peer.asked) == 2


def test_answers_that_break_off(scene: Scene) -> None:
    """They are none."""
    scene.add(1)
    scene.clock.advance(1.0)
    scene.peer.waiting.pop(0).callback(Response(200, {}, whole=False))
    assert scene.counted == {}
    scene.clock.advance(1.0)
    assert len(scene.peer.asked) == 2


def test_the_end(scene: Scene) -> None:
    """What waits is still sent; the program waits for it, but not for long."""
    scene.add(1)
    stopped = scene.exporter.stop()
    scene.peer.answer()
    assert stopped.called
    assert scene.counted == {"sent": 1}
    other = Scene()
    waiting = 6 * MOST_BATCH // len(LONG)
    other.add(waiting, LONG)
    stopped = other.exporter.stop()
    other.clock.advance(STOP_TIMEOUT)
    assert stopped.called
    assert other.counted == {"dropped": waiting}
    assert other.clock.getDelayedCalls() == []


def test_the_end_without_a_collector(scene: Scene) -> None:
    """One that does not answer is not waited for, nor where there is none."""
    scene.add(1)
    stopped = scene.exporter.stop()
    scene.peer.fail()
    assert stopped.called
    assert scene.counted == {"dropped": 1}
    idle = Scene()
    idle.exporter.end()
    assert idle.exporter.stop().called
    assert idle.clock.getDelayedCalls() == []


def test_reloads(scene: Scene) -> None:
    """Another collector gets what waits for one that is dead, at once; without one it is dropped."""
    scene.add(1)
    scene.clock.advance(1.0)
    scene.peer.fail()
    scene.exporter.use("http://d/v1/traces", (), "edge")
    scene.clock.advance(1.0)
    assert scene.peer.asked[-1][0] == b"http://d/v1/traces"
    scene.peer.answer()
    scene.add(2)
    scene.exporter.end()
    assert scene.counted == {"sent": 1, "dropped": 2}
    assert scene.clock.getDelayedCalls() == []
