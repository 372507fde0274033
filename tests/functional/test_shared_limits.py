"""One limit and several processes: exactly so many pass, whoever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.daemon import gateway
from support.forked import child
from support.limits import concurrent, limit
from support.services import Service
from support.waiting import eventually
from twisted.internet.task import Clock

from apigw.policy.limits.arithmetic import Limit
from apigw.policy.limits.concurrent import HELD, Claim
from apigw.policy.limits.in_page import PageStore
from apigw.shared.page import Page
from apigw.shared.slots import IN_FLIGHT, LOCK_MISSES

from .conftest import Start

WORKERS = 4


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(WORKERS)
    yield page
    page.close()


def store(page: Page) -> PageStore:
    clock = Clock()
    clock.advance(time.monotonic())
    return PageStore(page, clock, clock.seconds)


def asks(page: Page, worker: int, one: Limit, number: int) -> Callable[[Callable[[], None]], None]:
    """A worker that asks so often, and says in its slot how often it may."""

    def run(so_far: Callable[[], None]) -> None:
        page.become(worker, os.getpid())
        memory = store(page)
        checks = [(one, b"caller")]
        passed = 0
        so_far()
        for _ in range(number):
            if memory.check(checks).allowed:
                passed += 1
                page.slots.put(worker, IN_FLIGHT, passed)

    return run


@pytest.mark.parametrize(("algorithm", "number"), [("counter", 100_000), ("log", 50_000)])
def test_four_processes_are_held_to_one_limit(page: Page, algorithm: str, number: int) -> None:
    """Of a good deal more requests exactly the limit's number pass, also where a lock is not to be had in time."""
    one = limit(number, 3600, algorithm)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(child(asks(page, worker, one, number * 8 // 5 // WORKERS))) for worker in range(WORKERS)
        ]
        assert [worker.wait() for worker in workers] == [0] * WORKERS
    assert page.slots.total(IN_FLIGHT) == number, f"{page.slots.total(LOCK_MISSES)} misses"


def test_a_worker_that_is_killed_in_the_middle(page: Page) -> None:
    """Its locks are free, and the others go on: of what passed, at most one for each death is not counted."""
    one = limit(2**31 - 1, 3600, "counter")
    deaths = emptied = 0
    with child(asks(page, 0, one, 20_000)) as lives:
        while deaths < 20:
            with child(asks(page, 1, one, 10**9)) as dies:
                dies.wait_so_far()
                dies.kill()
            death = page.died(1)
            assert death.complete
            deaths += 1
            emptied += any(what for _, what in death.locks)
        assert lives.wait() == 0
    assert page.died(0).locks == []
    assert store(page).check([(one, b"caller")]).allowed
    if not emptied:
        counted = 2**31 - 1 - store(page).peek([(one, b"caller")]).remaining
        assert counted >= 20_000


def test_a_full_table_forgets_and_keeps_nobody_waiting() -> None:
    """More callers than there is room for, from two processes: each is served once, and the first ones begin anew."""
    callers = 12_000
    one = limit(100, 3600, "counter")
    page = Page.make(WORKERS, 1024 * 1024)

    def ask(worker: int) -> Callable[[Callable[[], None]], None]:
        def run(_: Callable[[], None]) -> None:
            page.become(worker, os.getpid())
            memory = store(page)
            passed = sum(memory.check([(one, b"%d %d" % (worker, caller))]).allowed for caller in range(callers))
            page.slots.put(worker, IN_FLIGHT, passed)
            memory.stop()

        return run

    with ExitStack() as stack:
        stack.callback(page.close)
        workers = [stack.enter_context(child(ask(worker))) for worker in range(2)]
        assert [worker.wait() for worker in workers] == [0, 0]
        assert [page.slots.get(worker, IN_FLIGHT) for worker in range(2)] == [callers] * 2
        page.become(2, os.getpid())
        memory = store(page)
        assert memory.check([(one, b"0 0")]).remaining == 99
        assert memory.check([(one, b"0 %d" % (callers - 1))]).remaining == 98


def test_places_of_four_processes(page: Page) -> None:
    """Never more at a time than there are, and all are free at the end."""
    one = concurrent(3)

    def work(worker: int) -> Callable[[Callable[[], None]], None]:
        def run(so_far: Callable[[], None]) -> None:
            page.become(worker, os.getpid())
            memory = store(page)
            for _ in range(3_000):
                claim = Claim([(one, b"caller")], memory)
                memory.admit([], claim)
                if claim.state == HELD and not claim.by_share:
                    page.slots.put(worker, IN_FLIGHT, 1)
                    assert page.slots.total(IN_FLIGHT) <= 3
                    page.slots.put(worker, IN_FLIGHT, 0)
                claim.release()
            while memory._owed:
                memory.sweep()

        return run

    with ExitStack() as stack:
        workers = [stack.enter_context(child(work(worker))) for worker in range(WORKERS)]
        assert [worker.wait() for worker in workers] == [0] * WORKERS
    assert store(page).taken(one) == (0, 0)


def test_the_workers_of_a_gateway_have_one_limit(start: Start, service: Service) -> None:
    """Whichever of them a connection comes to, and after one of them was killed."""
    document = gateway(services={"main": service.url}, routes=[{"path": "/*", "service": "main"}], workers=WORKERS)
    document["rate_limits"] = [{"endpoint": "/*", "limit": 60, "window": "1h", "scope": "ip"}]
    daemon = start(document)
    master = daemon.process.pid
    children = Path(f"/proc/{master}/task/{master}/children")
    eventually(lambda: len(children.read_text().split()) == WORKERS)

    seen = [daemon.get("/a").status for _ in range(40)]
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    eventually(lambda: len(children.read_text().split()) == WORKERS)
    seen += [daemon.get("/a").status for _ in range(40)]
    assert seen == [200] * 60 + [429] * 20
