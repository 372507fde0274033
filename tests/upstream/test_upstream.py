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
from apigw.config.model import Service
from apigw.config.model import Target as TargetConfig
from apigw.ops.metrics import Metrics
from apigw.upstream.balancing import RoundRobin
from apigw.upstream.failover import connect
from apigw.upstream.target import ASIDE_FOR, Target
from apigw.upstream.upstream import Upstream
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ConnectFailed, PoolExhausted

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")


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


class Counting(RoundRobin):
    """Counts the exchanges that are under way with each target."""

    counts = True

    def __init__(self) -> None:
        super().__init__()
        self.under_way: Counter[str] = Counter()

    def begin(self, target: Target) -> None:
        self.under_way[target.name] += 1

    def end(self, target: Target) -> None:
        self.under_way[target.name] -= 1
        assert self.under_way[target.name] >= 0


class Scene:
    def __init__(self, *weights: int) -> None:
        self.clock = Clock()
        deadlines = Deadlines(self.clock)
        deadlines.start()
        configs = tuple(
            TargetConfig("http", "127.0.0.1", 9001 + number, weight) for number, weight in enumerate(weights)
        )
        self.lines: list[Any] = []
        nobody: Any = Nobody()
        series = Metrics(CollectorRegistry(), "0").service("main")
        self.balancer = Counting()
        self.upstream = Upstream(
            Service("main", configs), self.make_target, self.balancer, deadlines, nobody, None, series
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
        target = self.upstream.balancer.pick(None)
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
    assert scene.upstream.balancer.pick(None) is None
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


def fail_to_connect(scene: Scene, number: int, times: int) -> None:
    for _ in range(times):
        scene.connect(number)
        scene.lines[number].fails()
        for line in scene.lines:
            if line.waiting:
                line.works()


def test_three_failures_in_a_row_set_a_target_aside_for_ten_seconds() -> None:
    """A machine that is down costs every other request a failed connect, or is never tried again."""
    scene = Scene(1, 1)
    fail_to_connect(scene, 0, 2)
    scene.connect(0)
    scene.lines[0].works()
    fail_to_connect(scene, 0, 2)
    assert scene.picked(4) == {0: 2, 1: 2}
    fail_to_connect(scene, 0, 1)
    assert scene.picked(4) == {1: 4}
    scene.clock.advance(ASIDE_FOR - 0.1)
    assert scene.picked(4) == {1: 4}
    scene.clock.advance(0.3)
    assert scene.picked(4) == {0: 2, 1: 2}
    fail_to_connect(scene, 0, 2)
    assert scene.picked(4) == {0: 2, 1: 2}


def test_the_last_target_is_never_set_aside() -> None:
    """All targets fail for a moment, and nobody is served for ten seconds."""
    scene = Scene(1, 1)
    fail_to_connect(scene, 0, 3)
    scene.connect(1)
    for _ in range(5):
        if scene.lines[1].waiting:
            scene.lines[1].fails()
        scene.connect(1)
    assert scene.picked(4) == {1: 4}
    alone = Scene(1)
    fail_to_connect(alone, 0, 5)
    assert alone.picked(2) == {0: 2}


def test_a_target_that_is_aside_and_sick_stays_away() -> None:
    """After ten seconds a target gets requests although its health check says no."""
    scene = Scene(1, 1)
    fail_to_connect(scene, 0, 3)
    scene.upstream.health_changed(scene.targets[0], False)
    scene.clock.advance(ASIDE_FOR + 1)
    assert scene.picked(4) == {1: 4}


def test_a_balancer_is_told_of_every_exchange_that_begins_and_ends() -> None:
    """From the moment that it waits for a connection; what fails to connect has ended, and so has what is cancelled."""
    scene = Scene(1, 1)
    first, second = (target.name for target in scene.targets)
    waiting = connect(scene.upstream, scene.targets[0])
    assert scene.balancer.under_way == {first: 1}
    scene.lines[0].fails()
    assert scene.balancer.under_way == {first: 0, second: 1}
    scene.lines[1].works()
    assert scene.balancer.under_way == {first: 0, second: 1}
    scene.upstream.end(scene.targets[1])

    waiting = connect(scene.upstream, scene.targets[0])
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    waiting.cancel()
    assert +scene.balancer.under_way == {}


def test_the_set_of_targets_may_change() -> None:
    """New ones get requests at once, removed ones none; what stays keeps its connections and its health."""
    scene = Scene(1, 1)
    kept, removed = scene.targets
    fail_to_connect(scene, 0, 3)
    assert scene.picked(2) == {1: 2}
    new = TargetConfig("http", "127.0.0.1", 9009, 1)
    scene.upstream.replace_targets([evolve(kept.config, weight=2), new])
    assert scene.targets[0] is kept
    assert removed not in scene.targets
    assert [line.closed for line in scene.lines] == [False, True, False]
    assert scene.picked(4) == {1: 4}
    scene.clock.advance(ASIDE_FOR + 0.1)
    assert scene.picked(6) == {0: 4, 1: 2}
    for _ in range(3):
        scene.targets[1].connect_failed("main", "refused")
    assert scene.picked(6) == {0: 6}
    scene.clock.advance(ASIDE_FOR + 0.1)
    assert scene.picked(6) == {0: 4, 1: 2}
    scene.upstream.replace_targets([])
    assert scene.upstream.balancer.pick(None) is None
    assert "main" in scene.upstream.none_healthy().detail
    assert all(line.closed for line in scene.lines)
