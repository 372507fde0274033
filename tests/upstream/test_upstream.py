"""Which target takes the next exchange, and what becomes of one that cannot be connected to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from apigw import is_compiled
from apigw.config.model import Service
from apigw.config.model import Target as TargetConfig
from apigw.errors import NoHealthyTarget
from apigw.ops.metrics import Metrics
from apigw.upstream.upstream import ASIDE_FOR, Target, Upstream, interleave
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ConnectFailed, PoolExhausted

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")


class Line:
    """A pool whose connections succeed or fail when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.exhausted = False

    def connect(self) -> Deferred[Any]:
        if self.exhausted:
            raise PoolExhausted("too many")
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def close(self) -> None: ...

    def works(self) -> None:
        self.waiting.pop(0).callback(self)

    def fails(self) -> None:
        self.waiting.pop(0).errback(ConnectFailed("refused"))


class Nobody:
    """An agent that has no connections."""

    def close(self) -> None: ...


class Scene:
    def __init__(self, *weights: int) -> None:
        self.clock = Clock()
        deadlines = Deadlines(self.clock)
        deadlines.start()
        configs = tuple(
            TargetConfig("http", "127.0.0.1", 9001 + number, weight) for number, weight in enumerate(weights)
        )
        self.lines: list[Any] = [Line() for _ in weights]
        nobody: Any = Nobody()
        series = Metrics(CollectorRegistry(), "0").service("main")
        self.upstream = Upstream(Service("main", configs), self.lines, deadlines, nobody, None, series)
        self.upstream.start()

    @property
    def targets(self) -> tuple[Target, ...]:
        return self.upstream.targets

    def connect(self, number: int = 0) -> list[Any]:
        """Fills with the target that was connected to, or the error."""
        outcome: list[Any] = []
        connecting = self.upstream.connect(self.targets[number])
        connecting.addCallbacks(lambda given: given[0], lambda failure: failure.value).addCallback(outcome.append)
        return outcome

    def picked(self, times: int) -> Counter[int]:
        return Counter(self.targets.index(self.upstream.pick()) for _ in range(times))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_a_rotation_is_fair_and_even(weights: list[int]) -> None:
    """A target gets more or less than its weight, or all of it in one burst."""
    names: list[Any] = list(range(len(weights)))
    rotation: Any = interleave(names, weights)
    total = sum(weights)
    counts = Counter(rotation)
    for name, weight in zip(names, weights, strict=True):
        assert counts[name] * total == weight * len(rotation)
        # At no time is a target two exchanges away from its share.
        for length in range(len(rotation) + 1):
            assert abs(rotation[:length].count(name) - length * weight / total) < 2


def test_equal_weights_cost_no_memory() -> None:
    """Two targets of weight 1,000,000 make a list of two million."""
    names: Any = ["a", "b"]
    assert list(interleave(names, [1_000_000, 1_000_000])) == names


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
    with pytest.raises(NoHealthyTarget):
        scene.upstream.pick()


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


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (TargetConfig("http", "127.0.0.1", 9001), "http://127.0.0.1:9001"),
        (TargetConfig("http", "svc", 80), "http://svc"),
        (TargetConfig("https", "svc", 443), "https://svc"),
        (TargetConfig("https", "svc", 80), "https://svc:80"),
        (TargetConfig("http", "::1", 9001), "http://[::1]:9001"),
    ],
)
def test_the_host_that_a_target_is_sent(target: TargetConfig, name: str) -> None:
    """A service does not recognise its own name."""
    pool: Any = Line()
    made = Target(target, pool)
    assert made.name == name
    assert made.authority == name.partition("://")[2].encode()
