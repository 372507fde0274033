"""The circuit of a service that several workers have together: who acts, and who notices."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial

import pytest
from prometheus_client import CollectorRegistry
from support.forked import Child, child, holds
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from apigw.config.model import CircuitBreaker
from apigw.errors import CircuitOpen, Overloaded
from apigw.ops.metrics import Metrics
from apigw.shared.page import Page
from apigw.shared.slots import LOCK_MISSES
from apigw.upstream.breaker import LEASE, Breaker, Status, Transition
from apigw.upstream.circuit import Circuit
from apigw.upstream.record import State
from apigw.upstream.shared_record import SharedRecord

CONFIG = CircuitBreaker(error_rate=0.5, window=60, min_requests=20, open_for=30, half_open_requests=3)
TIMEOUT = 2.0


class Worker:
    """One of those that share the circuit. Its health checks end when the test says so."""

    def __init__(self, page: Page, number: int, clock: Clock, cell: int, checked: bool) -> None:
        page.become(number, number + 1)
        metrics = Metrics(CollectorRegistry(), "0")
        self.value = metrics.registry.get_sample_value
        timeout = TIMEOUT if checked else None
        record = SharedRecord(CONFIG, page, cell)
        self.circuit = Circuit("main", CONFIG, clock, metrics.service("main"), timeout, record)
        self.checking: list[Deferred[bool]] = []
        self.clock = clock
        if checked:
            self.circuit.probe = self.probe

    def probe(self) -> Deferred[bool]:
        self.checking.append(Deferred())
        return self.checking[-1]

    def fail(self, times: int) -> None:
        now = self.clock.seconds()
        for _ in range(times):
            self.circuit.failure(self.circuit.admit(now), now)

    @property
    def gauge(self) -> float | None:
        return self.value("gateway_circuit_breaker_state", {"service": "main"})

    def made(self, to: str) -> float | None:
        """Transitions that it counts."""
        return self.value("gateway_circuit_breaker_transitions_total", {"service": "main", "to": to})


class Scene:
    def __init__(self, page: Page, name: bytes, checked: bool = False) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        cell = page.circuits.claim(name, self.clock.seconds())
        self.first, self.second = (Worker(page, number, self.clock, cell, checked) for number in (0, 1))
        self.both = (self.first, self.second)

    def look(self) -> None:
        for worker in self.both:
            worker.circuit.look()

    def states(self) -> list[str]:
        return [str(worker.circuit.status().state) for worker in self.both]


def test_who_opens_it_counts_it(page: Page) -> None:
    """Once for all workers; the others' gauge follows with their next look."""
    scene = Scene(page, b"opens")
    scene.first.fail(10)
    scene.second.fail(10)
    assert scene.states() == ["open", "open"]
    assert (scene.first.gauge, scene.second.gauge) == (0, 1)
    scene.look()
    assert (scene.first.gauge, scene.second.gauge) == (1, 1)
    assert (scene.first.made("open"), scene.second.made("open")) == (0, 1)


def test_one_worker_runs_the_health_check(page: Page) -> None:
    """The first to find that its time has come."""
    scene = Scene(page, b"checked", checked=True)
    scene.first.fail(20)
    scene.look()
    scene.clock.advance(30)
    assert [len(worker.checking) for worker in scene.both] == [1, 0]
    scene.look()
    assert [len(worker.checking) for worker in scene.both] == [1, 0]
    scene.first.checking[0].callback(True)
    assert scene.states() == ["closed", "closed"]


def test_it_becomes_half_open_without_who_opened_it(page: Page) -> None:
    """Each worker has a timer, once it has looked."""
    scene = Scene(page, b"timer", checked=True)
    scene.first.fail(20)
    scene.second.circuit.look()
    scene.first.circuit.stop()
    scene.clock.advance(30)
    assert len(scene.second.checking) == 1


def test_another_checks_if_there_is_no_result(page: Page) -> None:
    """Whoever ran the health check was killed. It gets its timeout and some seconds."""
    scene = Scene(page, b"killed", checked=True)
    scene.first.fail(20)
    scene.clock.advance(30)
    scene.first.circuit.stop()
    scene.clock.advance(TIMEOUT + LEASE - 0.1)
    scene.second.circuit.look()
    scene.second.circuit.look()
    assert len(scene.second.checking) == 0
    scene.clock.advance(0.1)
    scene.second.circuit.look()
    scene.second.circuit.look()
    assert len(scene.second.checking) == 1
    scene.second.checking[0].callback(False)
    assert str(scene.second.circuit.status().state) == "open"


def test_an_operator_acts_once(page: Page) -> None:
    """In whichever worker; all show the same."""
    scene = Scene(page, b"by hand")
    scene.first.circuit.open()
    assert [(str(status.state), status.forced, status.opened) for status in _statuses(scene)] == [("open", True, 1)] * 2
    with pytest.raises(CircuitOpen):
        scene.second.circuit.admit(scene.clock.seconds())
    scene.second.circuit.free()
    assert scene.states() == ["half-open", "half-open"]


def _statuses(scene: Scene) -> list[Status]:
    return [worker.circuit.status() for worker in scene.both]


def test_a_new_worker_finds_it_as_it_is(page: Page) -> None:
    """It does not ask a service that all others leave alone."""
    scene = Scene(page, b"new")
    scene.first.fail(20)
    new = Worker(page, 1, scene.clock, page.circuits.claim(b"new", 0), False)
    with pytest.raises(CircuitOpen):
        new.circuit.admit(scene.clock.seconds())
    new.circuit.look()
    assert new.gauge == 1


def test_a_worker_that_hangs_with_the_lock(page: Page) -> None:
    """Others decide by what they know, and what they count is not lost; an operator is told."""
    scene = Scene(page, b"hangs")
    scene.first.fail(15)
    page.become(1, 2)
    lock = page.circuits.lock_of(page.circuits.claim(b"hangs", 0))
    assert page.locks.take(lock)
    page.become(0, 1)
    scene.first.fail(5)
    assert page.slots.get(0, LOCK_MISSES) >= 5
    assert str(scene.first.circuit.status().state) == "closed"
    with pytest.raises(Overloaded):
        scene.first.circuit.open()
    page.locks.give_back(lock)
    assert (scene.first.circuit.status().failures, scene.second.circuit.status().total) == (20, 20)
    scene.second.fail(1)
    assert scene.states() == ["open", "open"]


WORKERS = 4


def test_it_opens_once_for_four_processes() -> None:
    """Each of which has only a part of the failures; and no outcome is lost or counted twice."""
    page = Page.make(WORKERS, 1024 * 1024)
    cell = page.circuits.claim(b"forked", 0)
    config = CircuitBreaker(error_rate=0.5, window=60, min_requests=8000, open_for=30)

    def run(number: int, so_far: object) -> None:
        page.become(number, os.getpid())
        made: list[Transition] = []
        breaker = Breaker(config, False, made.append, SharedRecord(config, page, cell))
        for outcome in range(2000):
            (breaker.failure if outcome % 2 else breaker.success)(0, 5.0)
        while breaker.state is not State.OPEN:  # on a busy machine, the lock may have been another's for too long
            breaker.look(5.0)
        os._exit(len(made))

    with ExitStack() as stack:
        workers: list[Child] = [stack.enter_context(child(partial(run, number))) for number in range(WORKERS)]
        made = sum(worker.wait() for worker in workers)
    page.become(0, 1)
    status = Breaker(config, False, print, SharedRecord(config, page, cell)).status(5.0)
    assert (made, status.opened, status.state) == (1, 1, State.OPEN)
    assert status.why == "4000 of 8000 failed in 60 s"


def test_the_probes_of_a_killed_worker_leave_their_places() -> None:
    """After their lease, to others."""
    page = Page.make(2, 1024 * 1024)
    cell = page.circuits.claim(b"probes", 0)

    def breaker(number: int) -> Breaker:
        page.become(number, os.getpid())
        return Breaker(CONFIG, False, lambda _: None, SharedRecord(CONFIG, page, cell))

    def probe() -> None:
        its = breaker(1)
        for _ in range(20):
            its.failure(0, 100.0)
        for _ in range(3):
            its.admit(130.0)

    with child(holds(probe)) as worker:
        worker.wait_so_far()
        worker.kill()
    page.died(1)
    ours = breaker(0)
    with pytest.raises(CircuitOpen):
        ours.admit(130.1)
    for _ in range(3):
        ours.success(ours.admit(130.0 + LEASE), 136.0)
    assert ours.state is State.CLOSED


def test_the_health_check_of_a_killed_worker_is_run_again() -> None:
    """By one of the others, once."""
    page = Page.make(3, 1024 * 1024)
    cell = page.circuits.claim(b"check", 0)

    def breaker(number: int) -> Breaker:
        page.become(number, os.getpid())
        return Breaker(CONFIG, True, lambda _: None, SharedRecord(CONFIG, page, cell), TIMEOUT + LEASE)

    def check() -> None:
        its = breaker(2)
        for _ in range(20):
            its.failure(0, 100.0)
        its.advance(130.0)

    with child(holds(check)) as worker:
        worker.wait_so_far()
        worker.kill()
    page.died(2)
    others = [breaker(number) for number in (0, 1)]
    assert [other.takes_over_check(130.0 + TIMEOUT) for other in others] == [False, False]
    assert [other.takes_over_check(130.0 + TIMEOUT + LEASE) for other in others] == [True, False]


@pytest.mark.parametrize("window", [90.0, 3600.0])
def test_long_windows_are_counted_in_wider_slices(page: Page, window: float) -> None:
    """As many as there is room for; an outcome leaves when its slice does."""
    config = CircuitBreaker(window=window)
    page.become(0, 1)
    record = SharedRecord(config, page, page.circuits.claim(f"{window}".encode(), 0))
    breaker = Breaker(config, False, lambda _: None, record)
    for second in range(0, int(window), 10):
        breaker.success(0, second)
    assert breaker.status(window - 1).total == window // 10
    assert breaker.status(1.5 * window - 1).total == window // 20
    assert breaker.status(2 * window).total == 0
