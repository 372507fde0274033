"""Health checks: what counts as an answer, and after how many of them a target changes sides."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from apigw import is_compiled
from apigw.config.model import HealthCheck, Service
from apigw.config.model import Target as TargetConfig
from apigw.ops.metrics import Metrics
from apigw.upstream.balancing import RoundRobin
from apigw.upstream.checks import AT_ONCE, MAX_ANSWER, HealthChecks, Turns, ask, first_success
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.deadlines import Deadlines

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")

CHECK = HealthCheck(path="/well", interval=10.0, timeout=2.0, unhealthy_after=3, healthy_after=2)


@implementer(IResponse)
class Response:
    """An answer whose body comes when the test says so."""

    version = (b"HTTP", 1, 1)
    phrase = b"OK"
    request = previousResponse = None
    length = 0

    def __init__(self, code: int) -> None:
        self.code = code
        self.headers = Headers()
        self.reader: Any = None
        self.dropped = False

    def setPreviousResponse(self, response: object) -> None: ...

    def deliverBody(self, protocol: Any) -> None:
        self.reader = protocol
        protocol.makeConnection(self)

    def loseConnection(self) -> None:
        self.dropped = True

    def body(self, *pieces: bytes, whole: bool = True) -> None:
        for piece in pieces:
            self.reader.dataReceived(piece)
        self.reader.connectionLost(Failure(ResponseDone() if whole else ResponseFailed([])))


@implementer(IAgent)
class Agent:
    """Notes what it is asked, and answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, Headers]] = []
        self.waiting: list[Deferred[Any]] = []

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: object = None
    ) -> Deferred[Any]:
        assert headers is not None
        assert bodyProducer is None
        self.asked.append((method, uri, headers))
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def answer(self, code: int, *pieces: bytes, whole: bool = True) -> Response:
        response = Response(code)
        self.waiting.pop(0).callback(response)
        response.body(*pieces, whole=whole)
        return response

    def close(self) -> None: ...


def quiet_target(config: TargetConfig) -> Target:
    """A target without connections."""
    pool: Any = Quiet()
    return Target(config, pool)


class Quiet:
    connections = 0

    def give_way(self) -> None: ...

    def close(self) -> None: ...


class Scene:
    def __init__(self, targets: int = 1) -> None:
        self.clock = Clock()
        self.agent = Agent()
        agent: Any = self.agent
        configs = tuple(TargetConfig("http", "127.0.0.1", 9001 + number) for number in range(targets))
        series = Metrics(CollectorRegistry(), "0").service("main")
        service = Service("main", configs)
        self.upstream = Upstream(service, quiet_target, RoundRobin(), Deadlines(self.clock), agent, None, series)
        self.checks = HealthChecks(self.upstream, CHECK, self.clock, Turns(), lambda: 0.0)

    def start(self) -> None:
        """All first checks are begun at once here."""
        self.checks.start()
        self.clock.advance(0)

    @property
    def available(self) -> list[bool]:
        return [target.available for target in self.upstream.targets]

    def ask(self) -> list[Any]:
        """Fills with None if the target passes, with a sentence if not."""
        outcome: list[Any] = []
        asking = ask(self.upstream, self.upstream.targets[0], CHECK, self.clock)
        asking.addErrback(lambda failure: failure.getErrorMessage()).addCallback(outcome.append)
        return outcome


def test_what_is_asked() -> None:
    """A service's log does not show who asks, or the check follows a redirect to somewhere that is well."""
    scene = Scene()
    scene.ask()
    ((method, uri, headers),) = scene.agent.asked
    assert (method, uri) == (b"GET", b"http://127.0.0.1:9001/well")
    assert headers.getRawHeaders("user-agent") == ["apigw-health"]
    assert not headers.hasHeader("cookie")
    assert headers.getRawHeaders("accept-encoding") == ["identity"]


def test_what_counts_as_an_answer() -> None:
    """A target that is broken passes, or one that is well does not."""
    for code, outcome in ((200, None), (204, None), (302, None), (399, None)):
        scene = Scene()
        asked = scene.ask()
        scene.agent.answer(code, b"ok")
        assert asked == [outcome]
    for code in (400, 404, 500, 503):
        scene = Scene()
        asked = scene.ask()
        scene.agent.answer(code)
        assert asked == [f"answered its health check with {code}"]


def test_an_answer_that_breaks_off_is_none() -> None:
    """A target that crashes whenever it answers passes its check."""
    scene = Scene()
    asked = scene.ask()
    scene.agent.answer(200, b"o", whole=False)
    assert asked == ["broke off in its answer to its health check"]


def test_an_answer_without_end_is_cut() -> None:
    """The check of a target that answers for ever fills the memory."""
    scene = Scene()
    asked = scene.ask()
    response = scene.agent.answer(200, b"x" * MAX_ANSWER, b"x")
    assert asked == [f"answered its health check with more than {MAX_ANSWER} bytes"]
    assert response.dropped


def test_a_late_answer_is_none() -> None:
    """A target that hangs holds up its own check for ever."""
    scene = Scene()
    asked = scene.ask()
    scene.clock.advance(1.9)
    assert asked == []
    scene.clock.advance(0.1)
    assert asked == ["did not answer its health check in 2 s"]

    asked = scene.ask()
    response = Response(200)
    scene.agent.waiting[-1].callback(response)
    scene.clock.advance(2.0)
    assert asked == ["did not answer its health check in 2 s"]
    assert response.dropped


def rounds(scene: Scene, *codes: int) -> None:
    for code in codes:
        scene.clock.advance(CHECK.interval)
        scene.agent.answer(code)


def test_a_target_changes_sides_after_so_many_in_a_row() -> None:
    """One lost packet takes a target out, or one lucky answer puts it back."""
    scene = Scene()
    scene.start()
    scene.agent.answer(500)  # the first is asked at once
    rounds(scene, 500, 200, 500, 500)
    assert scene.available == [True]
    rounds(scene, 500)
    assert scene.available == [False]
    rounds(scene, 200, 500, 200)
    assert scene.available == [False]
    rounds(scene, 200)
    assert scene.available == [True]


def test_each_target_counts_for_itself() -> None:
    """One sick target takes its neighbour with it."""
    scene = Scene(2)
    scene.start()
    for _ in range(4):
        for code in (500, 200):
            scene.agent.answer(code)
        scene.clock.advance(CHECK.interval)
    assert scene.available == [False, True]


def test_checks_follow_the_targets() -> None:
    """A new target is checked from the moment that it is there, and one that was removed is left alone."""
    scene = Scene(2)
    kept, removed = scene.upstream.targets
    scene.start()
    for _ in range(2):
        scene.agent.answer(500)
    new = TargetConfig("http", "127.0.0.1", 9009)
    scene.upstream.replace_targets([kept.config, new])
    scene.clock.advance(0)
    assert scene.agent.asked[-1][1] == b"http://127.0.0.1:9009/well"
    scene.agent.answer(200)
    scene.agent.asked.clear()
    scene.clock.advance(CHECK.interval)
    assert {uri for _, uri, _ in scene.agent.asked} == {b"http://127.0.0.1:9001/well", b"http://127.0.0.1:9009/well"}
    for _ in range(2):
        scene.agent.answer(500)
    rounds(scene, 500)
    assert scene.available == [False, True]
    assert removed.available
    scene.checks.stop()
    scene.upstream.replace_targets([])


def test_a_check_that_hangs_is_not_asked_twice() -> None:
    """Checks pile up at a target that does not answer."""
    scene = Scene()
    scene.start()
    scene.clock.pump([1.0] * 9)
    assert len(scene.agent.asked) == 1
    scene.clock.pump([1.0] * 25)
    assert len(scene.agent.asked) == 4
    assert scene.available == [False]


def test_after_the_end_nothing_is_asked_or_counted() -> None:
    """A service that is no longer configured keeps being asked."""
    scene = Scene()
    scene.start()
    scene.agent.answer(500)
    rounds(scene, 500)
    scene.clock.advance(CHECK.interval)
    scene.checks.stop()
    scene.clock.advance(100)
    assert len(scene.agent.asked) == 3
    assert scene.available == [True]
    assert scene.clock.getDelayedCalls() == []


def test_first_checks_are_spread_over_the_interval() -> None:
    """A thousand services that start together are not asked in one instant, then or ever after."""
    scene = Scene(4)
    numbers = iter([0.1, 0.3, 0.5, 0.7])
    checks = HealthChecks(scene.upstream, CHECK, scene.clock, Turns(), lambda: next(numbers))
    checks.start()
    assert scene.agent.asked == []
    for _ in range(3):
        for port in range(9001, 9005):
            scene.clock.advance(2)
            ((_, uri, _),) = scene.agent.asked
            assert uri == b"http://127.0.0.1:%d/well" % port
            scene.agent.asked.clear()
            scene.agent.answer(200)
        scene.clock.advance(2)


def test_few_checks_are_under_way_at_a_time() -> None:
    """Of all services together; the others have their turn when one has ended."""
    scene = Scene(2 * AT_ONCE)
    scene.start()
    assert len(scene.agent.asked) == AT_ONCE
    scene.agent.answer(200)
    assert len(scene.agent.asked) == AT_ONCE + 1
    scene.clock.advance(CHECK.timeout)
    assert len(scene.agent.asked) == 2 * AT_ONCE
    scene.checks.stop()
    assert scene.clock.getDelayedCalls() == []


def ready(scene: Scene) -> list[Any]:
    outcome: list[Any] = []
    scene.checks.any_answers().addErrback(lambda failure: failure.getErrorMessage()).addCallback(outcome.append)
    return outcome


def test_readiness_is_told_from_the_last_results() -> None:
    """Nobody is asked again, and one target that passed is enough."""
    scene = Scene(2)
    scene.start()
    for codes, expected in (((500, 200), None), ((500, 503), "answered its health check with 503")):
        for code in codes:
            scene.agent.answer(code)
        scene.agent.asked.clear()
        assert ready(scene) == [expected]
        assert scene.agent.asked == []
        scene.clock.advance(CHECK.interval)


def test_before_the_first_result_readiness_asks() -> None:
    """A gateway that has just started is ready as soon as one target is known to be well; the other's check goes on."""
    scene = Scene(2)
    scene.checks.start()
    outcome = ready(scene)
    assert len(scene.agent.asked) == 2
    assert outcome == []
    scene.agent.answer(500)
    scene.agent.answer(200)
    assert outcome == [None]
    scene.checks.stop()


@pytest.mark.parametrize(
    ("settings", "host", "well", "ill"),
    [
        ({}, None, (200, 204, 399), (400, 500)),
        ({"host": "shop.test"}, ["shop.test"], (200,), (400,)),
        ({"host": "2001:db8::1"}, ["[2001:db8::1]"], (200,), (400,)),
        ({"expected_status": (204, 401)}, None, (204, 401), (200, 500)),
    ],
)
def test_the_host_and_the_status_of_a_check(
    settings: dict[str, Any], host: list[str] | None, well: tuple[int, ...], ill: tuple[int, ...]
) -> None:
    """A service that looks at Host is asked with one that it knows; what is well is as configured."""
    for code in (*well, *ill):
        scene = Scene()
        outcome: list[bool] = []
        asking = ask(scene.upstream, scene.upstream.targets[0], HealthCheck(**settings), scene.clock)
        asking.addCallbacks(lambda _: True, lambda _: False).addCallback(outcome.append)
        assert scene.agent.asked[0][2].getRawHeaders("host") == host
        scene.agent.answer(code)
        assert outcome == [code in well]


def test_any_passes_as_soon_as_one_does() -> None:
    """A circuit stays open because one of two targets hangs."""
    scene = Scene(2)
    scene.start()
    scene.agent.answer(500)
    scene.agent.answer(500)
    outcome: list[bool] = []
    scene.checks.any_passes().addCallback(outcome.append)
    scene.agent.waiting.pop(0)  # which never answers
    assert outcome == []
    scene.agent.answer(200)
    assert outcome == [True]


def test_the_first_success_is_enough() -> None:
    """A service with one target of many down is not ready."""
    cancelled: list[object] = []
    one: Deferred[Any] = Deferred()
    other: Deferred[Any] = Deferred(cancelled.append)
    result = first_success([one, other])
    one.callback("here")
    assert result.result == "here"
    assert cancelled == [other]

    one, other = Deferred(), Deferred()
    result = first_success([one, other])
    one.errback(ValueError("first"))
    assert not result.called
    other.errback(ValueError("last"))
    messages: list[str] = []
    result.addErrback(lambda failure: messages.append(failure.getErrorMessage()))
    assert messages == ["last"]


def test_giving_up_gives_up_all() -> None:
    """Connections are made for an answer that nobody waits for."""
    cancelled: list[int] = []
    attempts: list[Deferred[Any]] = [Deferred(lambda _, number=number: cancelled.append(number)) for number in range(3)]  # type: ignore[misc]
    result = first_success(attempts)
    result.addErrback(lambda failure: None)
    result.cancel()
    assert cancelled == [0, 1, 2]
    assert first_success([succeed("at once"), Deferred()]).result == "at once"
