"""What workers know of a target together: who checks, and what the others make of it."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from apigw import is_compiled
from apigw.config.model import HealthCheck, Service
from apigw.config.model import Target as TargetConfig
from apigw.ops.metrics import Metrics
from apigw.shared.cells import FORGOTTEN
from apigw.shared.page import Page
from apigw.upstream.balancing import RoundRobin
from apigw.upstream.build import build
from apigw.upstream.checks import HealthChecks, Turns
from apigw.upstream.shared_standing import SharedStanding
from apigw.upstream.shared_target import SharedTarget
from apigw.upstream.standing import LONGEST
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.deadlines import Deadlines

from .test_checks import Agent, Quiet

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")

CHECK = HealthCheck(path="/well", interval=10.0, timeout=2.0, unhealthy_after=2, healthy_after=1)
NAMES = count()


class Worker:
    """A service with its targets, as one worker has it."""

    def __init__(self, page: Page, clock: Clock, names: list[bytes], checking: bool) -> None:
        agent: Any = Agent()
        self.agent: Agent = agent
        self.clock = clock
        self._cells = iter([page.targets.claim(name, clock.seconds()) for name in names])
        self._page = page
        deadlines = Deadlines(clock)
        deadlines.start()
        service = Service(
            "main", tuple(TargetConfig("http", "127.0.0.1", 9001 + number) for number in range(len(names)))
        )
        series = Metrics(CollectorRegistry(), "0").service("main")
        self.upstream = Upstream(service, self.target, RoundRobin(), deadlines, agent, None, series)
        self.checks = HealthChecks(self.upstream, CHECK, clock, Turns(), lambda: 0.0)
        self.upstream.start()
        self.checks.start(checking)

    def target(self, config: TargetConfig) -> Target:
        pool: Any = Quiet()
        cell = next(self._cells)
        return Target(config, pool, SharedTarget(self._page, cell), SharedStanding(10.0, self._page, cell))

    @property
    def available(self) -> list[bool]:
        return [target.available for target in self.upstream.targets]

    def fail(self, number: int, times: int = 1) -> None:
        for _ in range(times):
            self.upstream.targets[number].connect_failed("main", "refused")

    def ready(self) -> list[Any]:
        """Fills with None if a target answers, with a sentence if none does."""
        outcome: list[Any] = []
        asking = self.checks.any_answers()
        asking.addErrback(lambda failure: failure.getErrorMessage()).addCallback(outcome.append)
        return outcome


class Scene:
    """The first of two workers is the one that checks."""

    def __init__(self, page: Page, targets: int = 2) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self._page = page
        self.names = [b"target %d" % next(NAMES) for _ in range(targets)]
        self.first, self.second = self.worker(True), self.worker(False)
        self.clock.advance(0)

    def worker(self, checking: bool) -> Worker:
        return Worker(self._page, self.clock, self.names, checking)

    def round(self, *codes: int) -> None:
        """The first worker's checks of the targets are answered, and the next are due."""
        for code in codes:
            self.first.agent.answer(code)
        self.clock.advance(CHECK.interval)


def test_one_worker_checks_and_all_know(page: Page) -> None:
    scene = Scene(page)
    scene.round(500, 200)
    scene.round(500, 200)
    assert scene.second.agent.asked == []
    assert scene.first.available == [False, True]
    assert scene.second.available == [True, True]
    scene.second.upstream.look()
    assert scene.second.available == [False, True]
    scene.round(200, 200)
    scene.second.upstream.look()
    assert scene.second.available == [True, True]


def test_a_new_worker_knows_at_its_start(page: Page) -> None:
    scene = Scene(page)
    scene.round(500, 200)
    scene.round(500, 200)
    assert scene.worker(False).available == [False, True]


def test_another_worker_goes_on_checking(page: Page) -> None:
    """From what was known: what is unhealthy stays so until a check says otherwise."""
    scene = Scene(page, 1)
    scene.round(500)
    scene.round(500)
    scene.second.upstream.look()
    scene.first.checks.end()
    asked = len(scene.first.agent.asked)
    scene.second.checks.begin()
    scene.clock.advance(CHECK.interval)
    assert (len(scene.first.agent.asked), len(scene.second.agent.asked)) == (asked, 1)
    assert scene.second.available == [False]
    scene.second.agent.answer(200)
    scene.first.upstream.look()
    assert (scene.first.available, scene.second.available) == ([True], [True])


def test_who_takes_over_begins_with_the_last_results(page: Page) -> None:
    """Even if it has not looked since: one failure is not enough for what the other has found healthy again."""
    scene = Scene(page, 1)
    scene.round(500)
    scene.round(500)
    scene.second.upstream.look()
    scene.round(200)
    scene.first.checks.end()
    scene.second.checks.begin()
    scene.clock.advance(CHECK.interval)
    scene.second.agent.answer(500)
    assert (scene.first.available, scene.second.available) == ([True], [True])
    scene.first.upstream.look()
    assert scene.first.available == [True]


def test_every_worker_says_whether_it_is_ready(page: Page) -> None:
    """By the checks of the one that checks; it asks itself only if nobody has asked yet."""
    scene = Scene(page, 1)
    early = scene.second.ready()
    assert (len(scene.second.agent.asked), early) == (1, [])
    scene.second.agent.answer(200)
    assert early == [None]
    scene.round(500)
    assert scene.second.ready() == ["answered its health check with 500"]
    scene.round(200)
    assert scene.second.ready() == [None]
    assert len(scene.second.agent.asked) == 1


def test_failures_are_counted_over_all_workers(page: Page) -> None:
    """The fifth in a row ejects the target for all, and one request of all brings it back for all."""
    scene = Scene(page)
    first, second = (worker.upstream.targets[0] for worker in (scene.first, scene.second))
    scene.first.fail(0, 4)
    second.succeeded()
    scene.first.fail(0, 2)
    scene.second.fail(0, 2)
    assert scene.first.available == scene.second.available == [True, True]
    scene.first.fail(0, 1)
    assert (scene.first.available, scene.second.available) == ([False, True], [True, True])
    scene.second.upstream.look()
    assert scene.second.available == [False, True]
    assert second.standing.lately(scene.clock.seconds() + 10 + LONGEST)
    assert not second.standing.lately(scene.clock.seconds() + 11 + LONGEST)
    scene.clock.advance(10.2)
    assert first.admits()
    assert not second.admits()
    second.succeeded()
    assert not second.ejected
    scene.first.upstream.look()
    assert not first.ejected


def test_a_late_failure_does_not_eject_what_another_workers_probe_has_brought_back(page: Page) -> None:
    """The failure of a worker that has not looked since is the first of a new row."""
    scene = Scene(page)
    first, second = (worker.upstream.targets[0] for worker in (scene.first, scene.second))
    scene.first.fail(0, 5)
    scene.second.upstream.look()
    scene.clock.advance(10.2)
    assert first.admits()
    first.succeeded()
    second.failed("status 500")
    assert (first.standing.until, second.ejected, second.available) == (0, False, True)
    scene.first.fail(0, 4)
    assert first.ejected


def test_an_ejection_by_another_worker_is_followed_to_its_end(page: Page) -> None:
    """Also a second one, and one that a new worker finds when it begins."""
    scene = Scene(page)
    scene.first.checks.end()
    scene.first.fail(0, 5)
    scene.second.upstream.look()
    scene.clock.advance(10.2)
    target = scene.first.upstream.targets[0]
    assert target.admits()
    target.failed("status 500")
    scene.second.upstream.look()
    assert scene.second.available == scene.worker(False).available == [False, True]
    scene.clock.advance(19)
    scene.second.upstream.look()
    assert scene.second.available == [False, True]
    scene.clock.advance(1.2)
    for worker in (scene.second, scene.worker(False)):
        assert (worker.available, worker.upstream.targets[0].ejected) == ([True, True], True)


def test_requests_of_other_workers_are_counted(page: Page) -> None:
    """Those of a worker that has died are not."""
    scene = Scene(page)
    page.become(1, 2)
    other = scene.worker(False)
    page.become(0, 1)
    first = scene.worker(False).upstream
    for _ in range(3):
        other.upstream.begin(other.upstream.targets[0])
    first.begin(first.targets[0])
    first.counts = True
    first.replace_targets([target.config for target in first.targets])
    first.choose()
    assert [target.load for target in first.targets] == [4, 0]
    page.died(1)
    scene.clock.advance(1)
    first.choose()
    assert [target.load for target in first.targets] == [1, 0]


def test_two_workers_do_not_eject_the_last_two_targets(page: Page) -> None:
    """The second sees that the first has ejected one."""
    scene = Scene(page)
    scene.first.fail(0, 5)
    scene.second.fail(1, 5)
    third = scene.worker(False)
    for worker in (scene.first, scene.second, third):
        worker.upstream.look()
        assert sum(worker.available) == 1


def test_a_removed_target_keeps_its_cell_while_it_has_connections(page: Page) -> None:
    """However long its last exchange takes: it writes to no cell that is another's by then."""
    scene = Scene(page, 1)
    upstream = scene.first.upstream
    (target,) = upstream.targets
    pool: Any = target.pool
    pool.connections = 1
    assert target.shared is not None
    target.shared.checked(True, True, "")

    def is_kept() -> bool:
        """Whether the cell is still that of the target."""
        for _ in range(3):
            scene.clock.advance(FORGOTTEN / 2)
            upstream.look()
        return SharedTarget(page, page.targets.claim(scene.names[0], scene.clock.seconds())).is_known

    upstream.replace_targets(())
    assert is_kept()
    pool.connections = 0
    assert not is_kept()


def test_a_removed_service_keeps_its_cells_while_it_has_connections(page: Page) -> None:
    scene = Scene(page, 2)
    upstream = scene.first.upstream
    upstream.close()
    pool: Any = upstream.targets[1].pool
    pool.connections = 1
    assert upstream.keep()
    pool.connections = 0
    assert not upstream.keep()


def test_what_is_known_of_a_target_stays_with_the_services_configuration(page: Page) -> None:
    """Two workers share it; another configuration of the service, or another address, begins anew."""
    clock = Clock()
    clock.advance(1000)

    def cells(**more: Any) -> list[int]:
        targets = tuple(TargetConfig("http", "127.0.0.1", port) for port in (9001, 9002))
        service = Service("of this test", targets, **more)
        series = Metrics(CollectorRegistry(), "0").service(service.name)
        upstream = build(service, clock, Deadlines(clock), series, page)
        return [target.shared._place for target in upstream.targets if target.shared is not None]

    first = cells()
    assert cells() == first
    assert len({*first, *cells(connect_timeout=1.0)}) == 4
