"""Which target takes the next exchange, and what becomes of one that cannot be connected to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from attrs import evolve
from prometheus_client import CollectorRegistry
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock

from apigw import is_compiled
from apigw.config.model import Ejection, Service
from apigw.config.model import Target as TargetConfig
from apigw.ops.metrics import Metrics
from apigw.upstream.balancing import RoundRobin
from apigw.upstream.failover import connect
from apigw.upstream.standing import PROBE_LEASE
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ConnectFailed, PoolExhausted

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")


NEW = TargetConfig("http", "127.0.0.1", 9009)


class Line:
    """A pool whose connections succeed or fail when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.exhausted = False
        self.closed = False

    def connect(self) -> Deferred[Any]:
        if self.exhausted:
            return fail(PoolExhausted("too many"))
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def close(self) -> None:
        self.closed = True

    def works(self) -> None:
        self.waiting.pop(0).callback(self)

    def fails(self) -> None:
        self.waiting.pop(0).errback(ConnectFailed("refused"))


class Nobody:
    """An agent that has no connections."""

    def close(self) -> None: ...


class Scene:
    """A service with targets of these weights."""

    def __init__(self, *weights: int, **settings: Any) -> None:
        self.clock = Clock()
        deadlines = Deadlines(self.clock)
        deadlines.start()
        configs = tuple(
            TargetConfig("http", "127.0.0.1", 9001 + number, weight) for number, weight in enumerate(weights)
        )
        self.lines: list[Any] = []
        nobody: Any = Nobody()
        self.registry = CollectorRegistry()
        series = Metrics(self.registry, "0").service("main")
        self.upstream = Upstream(
            Service("main", configs, **settings), self.make_target, RoundRobin(), deadlines, nobody, None, series
        )
        self.upstream.start()

    def make_target(self, config: TargetConfig) -> Target:
        self.lines.append(Line())
        return Target(config, self.lines[-1])

    @property
    def targets(self) -> tuple[Target, ...]:
        return self.upstream.targets

    def connect(self, number: int = 0) -> list[Any]:
        """Fills with the target that was connected to, or the error."""
        outcome: list[Any] = []
        connecting = connect(self.upstream, self.targets[number])
        connecting.addCallbacks(lambda taken: taken.target, lambda failure: failure.value).addCallback(outcome.append)
        return outcome

    def pick(self) -> Target:
        target = self.upstream.choose()
        assert target is not None
        return target

    def picked(self, times: int) -> Counter[int]:
        return Counter(self.targets.index(self.pick()) for _ in range(times))


def test_turns_are_taken_over_those_that_are_available() -> None:
    """A target that is set aside gets requests, or its neighbour gets all of its share and none of its own."""
    scene = Scene(1, 1, 1)
    assert scene.picked(9) == {0: 3, 1: 3, 2: 3}
    scene.upstream.health_changed(scene.targets[1], False)
    assert set(scene.picked(9)) == {0, 2}
    scene.upstream.health_changed(scene.targets[1], True)
    assert scene.picked(9) == {0: 3, 1: 3, 2: 3}


def test_nobody_is_well() -> None:
    """Requests are sent to targets that are known to be down."""
    scene = Scene(1, 1)
    for target in scene.targets:
        scene.upstream.health_changed(target, False)
    assert scene.upstream.choose() is None
    assert "main" in scene.upstream.none_healthy().detail


def test_another_target_is_tried_once() -> None:
    """A target that is down costs an error, or a request goes round all targets in turn."""
    scene = Scene(1, 1, 1)
    outcome = scene.connect(0)
    scene.lines[0].fails()
    other = next(number for number in (1, 2) if scene.lines[number].waiting)
    assert outcome == []
    scene.lines[other].works()
    assert outcome == [scene.targets[other]]

    outcome = scene.connect(0)
    scene.lines[0].fails()
    other = next(number for number in (1, 2) if scene.lines[number].waiting)
    scene.lines[other].fails()
    assert isinstance(outcome[0], ConnectFailed)
    assert not any(line.waiting for line in scene.lines)


def test_a_full_pool_is_no_reason_to_go_elsewhere() -> None:
    """A queue that is full at one target fills up the others."""
    scene = Scene(1, 1)
    scene.lines[0].exhausted = True
    assert isinstance(scene.connect(0)[0], PoolExhausted)
    assert scene.lines[1].waiting == []


def break_down(scene: Scene, number: int, times: int = 5) -> None:
    for _ in range(times):
        scene.targets[number].failed("status 500")


@pytest.mark.parametrize("how", ["connect", "answer"])
def test_five_failures_in_a_row_eject_a_target(how: str) -> None:
    """Connections that fail and answers that say so are in one row, which a success ends."""
    scene = Scene(1, 1)

    def once() -> None:
        if how == "connect":
            scene.connect(0)
            scene.lines[0].fails()
            scene.lines[1].works()
        else:
            scene.targets[0].failed("status 503")

    for _ in range(4):
        once()
    scene.targets[0].succeeded()
    for _ in range(4):
        once()
    assert scene.picked(4) == {0: 2, 1: 2}
    once()
    assert scene.picked(4) == {1: 4}


def test_an_ejected_target_comes_back_by_one_request() -> None:
    """When its time is over it gets one, and more once that has succeeded."""
    scene = Scene(1, 1)
    break_down(scene, 0)
    scene.clock.advance(9.9)
    assert scene.picked(4) == {1: 4}
    scene.clock.advance(0.3)
    assert scene.picked(6) == {0: 1, 1: 5}
    scene.targets[0].succeeded()
    assert scene.picked(4) == {0: 2, 1: 2}


def test_a_probe_that_says_nothing_is_followed_by_another() -> None:
    """Its client may have left."""
    scene = Scene(1, 1)
    break_down(scene, 0)
    scene.clock.advance(10.2)
    assert scene.picked(4) == {0: 1, 1: 3}
    scene.clock.advance(PROBE_LEASE + 0.1)
    assert scene.picked(4) == {0: 1, 1: 3}


def test_each_ejection_takes_twice_as_long_up_to_five_minutes() -> None:
    """One that begins five minutes after the last one takes no longer than the first."""
    scene = Scene(1, 1)
    break_down(scene, 0)
    lengths = []
    for _ in range(6):
        lengths.append(scene.targets[0].deadline - scene.clock.seconds())
        scene.clock.pump([0.1] * int(10 * lengths[-1] + 2))
        assert scene.picked(2)[0] == 1
        scene.targets[0].failed("status 500")
    assert lengths == pytest.approx([10, 20, 40, 80, 160, 300])
    scene.clock.advance(301)
    scene.picked(2)
    scene.targets[0].succeeded()
    scene.clock.advance(301)
    break_down(scene, 0)
    assert scene.targets[0].deadline - scene.clock.seconds() == pytest.approx(10)


def test_what_was_sent_before_the_ejection_says_nothing() -> None:
    """Neither brings it back, nor makes it longer."""
    scene = Scene(1, 1)
    break_down(scene, 0)
    until = scene.targets[0].deadline
    scene.targets[0].succeeded()
    scene.targets[0].failed("status 500")
    assert (scene.targets[0].deadline, scene.picked(4)) == (until, {1: 4})


@pytest.mark.parametrize(
    ("most", "targets", "ejected"), [(0.5, 1, 0), (0.5, 2, 1), (0.5, 3, 1), (0.5, 4, 2), (1.0, 4, 3), (0.1, 4, 0)]
)
def test_no_more_targets_are_ejected_than_may_be(most: float, targets: int, ejected: int) -> None:
    """The share is rounded down, and one always stays."""
    scene = Scene(*[1] * targets, ejection=Ejection(most=most))
    for number in range(targets):
        break_down(scene, number, 7)
    assert sum(target.ejected for target in scene.targets) == ejected
    assert len(scene.picked(2 * targets)) == targets - ejected


def test_a_target_without_weight_is_none_that_stays() -> None:
    """It gets no requests, so the only other one is not ejected."""
    scene = Scene(1, 0)
    break_down(scene, 0)
    assert scene.picked(3) == {0: 3}


def test_without_ejection_a_target_gets_requests_however_it_does() -> None:
    scene = Scene(1, 1, ejection=None)
    break_down(scene, 0, 100)
    assert scene.picked(4) == {0: 2, 1: 2}


def test_a_target_that_comes_back_warms_up() -> None:
    """Its share grows from a tenth to all of it; that of one which is new after the start likewise."""
    scene = Scene(1, 1, slow_start=30.0)
    assert scene.picked(20) == {0: 10, 1: 10}
    break_down(scene, 0)
    scene.clock.advance(10.2)
    scene.picked(2)
    scene.targets[0].succeeded()
    assert scene.picked(200)[0] == pytest.approx(200 * 0.1 / 1.1, abs=2)
    scene.clock.advance(15)
    assert scene.picked(200)[0] == pytest.approx(200 * 0.55 / 1.55, abs=2)
    scene.clock.advance(15)
    assert scene.picked(200) == {0: 100, 1: 100}
    scene.upstream.replace_targets([*(target.config for target in scene.targets), NEW])
    assert scene.picked(210)[2] == pytest.approx(10, abs=1)


def test_targets_that_all_warm_up_share_the_load() -> None:
    """Nobody is refused because none has its full share."""
    scene = Scene(1, 1, slow_start=30.0)
    for target in scene.targets:
        target.warm_up(30.0, scene.clock.seconds())
    assert scene.picked(20)[0] == pytest.approx(10, abs=1)


def test_a_target_that_is_aside_and_sick_stays_away() -> None:
    """After ten seconds a target gets requests although its health check says no."""
    scene = Scene(1, 1)
    break_down(scene, 0)
    scene.upstream.health_changed(scene.targets[0], False)
    scene.clock.advance(11)
    assert scene.picked(4) == {1: 4}


def test_requests_in_flight_are_counted_from_begin_to_end() -> None:
    """From when one waits for a connection; what fails to connect has ended, and so has what is cancelled."""
    scene = Scene(1, 1)

    def busy() -> list[int]:
        return [target.busy for target in scene.targets]

    scene.upstream.counts = True
    waiting = connect(scene.upstream, scene.targets[0])
    assert busy() == [1, 0]
    scene.lines[0].fails()
    assert busy() == [0, 1]
    scene.lines[1].works()
    assert busy() == [0, 1]
    scene.upstream.end(scene.targets[1])

    waiting = connect(scene.upstream, scene.targets[0])
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    waiting.cancel()
    assert (busy(), scene.upstream.balancer.load) == ([0, 0], 0)


def test_one_that_waits_for_names_may_end_another() -> None:
    """As on one connection of HTTP/2, which fails with the first answer."""
    scene = Scene(1)
    first, second = scene.upstream.when_resolved(), scene.upstream.when_resolved()
    second.addErrback(lambda failure: failure.trap(CancelledError))
    first.addCallback(lambda _: second.cancel())
    scene.upstream.names_known()
    scene.clock.advance(60)
    assert first.called
    assert second.called


def test_nothing_is_counted_for_turns() -> None:
    """Who makes and ends connections without counting leaves nothing behind, not even for other workers to see."""
    scene = Scene(1)
    assert not scene.upstream.counts
    connect(scene.upstream, scene.targets[0])
    scene.lines[0].works()
    assert scene.targets[0].busy == 0


def test_the_set_of_targets_may_change() -> None:
    """New ones get requests at once, removed ones none; what stays keeps its connections and how it does."""
    scene = Scene(1, 1)
    kept, removed = scene.targets
    break_down(scene, 0)
    assert scene.picked(2) == {1: 2}
    scene.upstream.begin(removed)
    scene.upstream.begin(kept)
    scene.upstream.replace_targets([evolve(kept.config, weight=2), NEW])
    assert scene.upstream.balancer.load == 1
    scene.upstream.end(removed)
    assert scene.upstream.balancer.load == 1
    assert scene.targets[0] is kept
    assert removed not in scene.targets
    assert [line.closed for line in scene.lines] == [False, True, False]
    assert scene.picked(4) == {1: 4}
    scene.clock.advance(10.2)
    assert scene.picked(4)[0] == 1
    kept.succeeded()
    assert scene.picked(6) == {0: 4, 1: 2}
    break_down(scene, 1)
    assert scene.picked(6) == {0: 6}
    scene.upstream.replace_targets([])
    assert scene.upstream.choose() is None
    assert "main" in scene.upstream.none_healthy().detail
    assert all(line.closed for line in scene.lines)


def test_what_a_target_does_after_it_is_gone_concerns_nobody() -> None:
    """No series of it, no ejection."""
    scene = Scene(1, 1)
    gone = scene.targets[0]
    scene.upstream.replace_targets([scene.targets[1].config, NEW])
    for _ in range(9):
        gone.failed("status 500")
    scene.upstream.health_changed(gone, False)
    labels = {sample.labels.get("target") for family in scene.registry.collect() for sample in family.samples}
    assert gone.name not in labels
    assert scene.targets[0].name in labels
