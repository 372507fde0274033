"""``max_requests``: who gets a place, and who waits for one."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from apigw.config.model import Service, Target
from apigw.ops.metrics import Metrics
from apigw.shared.cells import FORGOTTEN
from apigw.shared.page import Page
from apigw.upstream.admission import Admission
from apigw.upstream.build import build
from apigw.upstream.shared_allowance import SharedAllowance
from apigw.upstream.upstream import Upstream
from apigw.wire.allowance import Allowance
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import PoolExhausted


class Scene:
    def __init__(self, allowance: Allowance, clock: Clock) -> None:
        self.clock = clock
        deadlines = Deadlines(clock)
        deadlines.start()
        self.admission = Admission(allowance, 5.0, deadlines)
        self.outcomes: list[Any] = []

    def wait(self) -> Any:
        waiting = self.admission.wait()
        waiting.addErrback(lambda failure: failure.type).addCallback(self.outcomes.append)
        return waiting


def test_more_requests_wait_in_turn() -> None:
    """A place that becomes free goes to the one that waits longest, and not to a newcomer."""
    scene = Scene(Allowance(2, 2), Clock())
    assert [scene.admission.enter() for _ in range(3)] == [True, True, False]
    scene.wait()
    scene.wait()
    scene.admission.leave()
    assert scene.outcomes == [None]
    assert not scene.admission.enter()
    scene.admission.leave()
    scene.admission.leave()
    assert scene.outcomes == [None, None]
    assert scene.admission.enter()


def test_not_too_many_wait_and_nobody_for_too_long() -> None:
    scene = Scene(Allowance(1, 1), Clock())
    scene.admission.enter()
    scene.wait()
    scene.wait()
    assert scene.outcomes == [PoolExhausted]
    scene.clock.pump([0.1] * 51)
    assert scene.outcomes == [PoolExhausted] * 2
    scene.wait()
    assert len(scene.outcomes) == 2


def test_one_that_leaves_the_queue_takes_no_place() -> None:
    scene = Scene(Allowance(1, 1), Clock())
    scene.admission.enter()
    scene.wait().cancel()
    assert scene.outcomes == [CancelledError]
    scene.admission.leave()
    assert scene.admission.enter()


def test_a_thousand_that_fail_at_once_do_so_one_after_the_other() -> None:
    """As where the circuit opens while they wait: each gives its place back when it gets it."""
    scene = Scene(Allowance(1, 1000), Clock())
    scene.admission.enter()
    for _ in range(1000):
        scene.wait().addCallback(lambda _: scene.admission.leave()).addErrback(scene.outcomes.append)
    scene.admission.leave()
    assert scene.outcomes == [None] * 1000
    assert scene.admission.enter()


def test_the_places_are_those_of_all_workers(page: Page) -> None:
    """One that waits in a worker gets the place that another has given back, within moments."""
    clock = Clock()
    clock.advance(1000)
    cell = page.targets.claim(b"requests of a test", clock.seconds())
    scenes = []
    for worker in (0, 1):
        page.become(worker, worker + 1)
        scenes.append(Scene(SharedAllowance(2, 5, page, cell, clock), clock))
    first, second = scenes
    assert first.admission.enter()
    assert first.admission.enter()
    assert not second.admission.enter()
    second.wait()
    first.admission.leave()
    clock.pump([0.01] * 3)
    assert second.outcomes == [None]


def test_a_place_is_taken_for_as_long_as_the_request_takes(page: Page) -> None:
    """A worker that begins ten minutes later, as after a death, knows of it."""
    clock = Clock()
    clock.advance(1000)
    service = Service("lasting", (Target("http", "127.0.0.1", 9001),), max_requests=1)

    def upstream(worker: int) -> Upstream:
        page.become(worker, worker + 1)
        return build(service, clock, Deadlines(clock), Metrics(CollectorRegistry(), "0").service("lasting"), page)

    first = upstream(0)
    assert first.admission is not None
    assert first.admission.enter()
    for _ in range(3):
        clock.advance(FORGOTTEN / 2)
        first.look()
    second = upstream(1)
    assert second.admission is not None
    assert not second.admission.enter()
