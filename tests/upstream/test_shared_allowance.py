"""Connections to a target that several workers may have together: never too many, and nobody starves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count

import pytest
from support.forked import child, holds
from twisted.internet.task import Clock

from apigw.shared.page import Page
from apigw.shared.slots import LOCK_MISSES
from apigw.upstream.shared_allowance import POLL, TURN, SharedAllowance

NAMES = count()


class Worker:
    """One that connects as soon as it may, and counts what it has."""

    def __init__(self, page: Page, number: int, clock: Clock, cell: int, most: int) -> None:
        page.become(number, number + 1)
        self.allowance = SharedAllowance(most, 3, page, cell, clock)
        self.allowance.retries(self.retry)

    @property
    def has(self) -> int:
        return self.allowance.taken

    def ask(self) -> bool:
        return self.allowance.take() or self.allowance.wait()

    def retry(self) -> None:
        while self.allowance.waiting and self.allowance.take():
            self.allowance.leave()

    def exchange_ends(self, busy: bool = False) -> bool:
        """Whether its connection is given up for another worker."""
        gives = self.allowance.is_wanted and self.allowance.gives_way(busy)
        if gives:
            self.allowance.give_back()
        return gives


class Scene:
    def __init__(self, page: Page, most: int) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        cell = page.targets.claim(b"allowance %d" % next(NAMES), 0)
        self.first, self.second = (Worker(page, number, self.clock, cell, most) for number in (0, 1))
        page.become(0, 1)

    def wait(self, seconds: float = POLL) -> None:
        self.clock.pump([0.001] * round(seconds * 1000 + 1))


def test_the_maximum_is_of_all_workers(page: Page) -> None:
    scene = Scene(page, 4)
    taken = [worker.allowance.take() for _ in range(3) for worker in (scene.first, scene.second)]
    assert taken == [True] * 4 + [False] * 2
    assert scene.first.allowance.is_full and scene.second.allowance.is_full
    scene.first.allowance.give_back()
    assert scene.second.allowance.take()


def test_so_many_wait_in_all_workers(page: Page) -> None:
    scene = Scene(page, 1)
    assert [worker.ask() for _ in range(3) for worker in (scene.first, scene.second)] == [True] * 4 + [False] * 2
    scene.second.allowance.leave()
    assert scene.first.ask()


def test_a_place_that_another_worker_gives_back_is_taken_soon(page: Page) -> None:
    scene = Scene(page, 2)
    for _ in range(2):
        scene.first.ask()
    scene.second.ask()
    scene.wait()
    assert scene.second.has == 0
    scene.first.allowance.give_back()
    scene.wait()
    assert scene.second.has == 1


def test_who_is_idle_gives_way(page: Page) -> None:
    """One connection in a while, and none when nobody wants any."""
    scene = Scene(page, 2)
    for _ in range(2):
        scene.first.ask()
    assert not scene.first.exchange_ends()
    scene.second.ask()
    scene.wait()
    assert [scene.first.exchange_ends(), scene.first.exchange_ends()] == [True, False]
    scene.wait()
    assert (scene.first.has, scene.second.has) == (1, 1)
    assert not scene.first.exchange_ends()


def test_who_is_busy_keeps_its_share(page: Page) -> None:
    """What it has above that goes to the others, though exchanges wait here too, and is not taken again."""
    scene = Scene(page, 4)
    for _ in range(5):
        scene.first.ask()
    for _ in range(2):
        scene.second.ask()
    for _ in range(10):
        scene.wait()
        scene.first.exchange_ends(busy=True)
    assert (scene.first.has, scene.second.has) == (2, 2)


def test_fewer_connections_than_workers_go_round(page: Page) -> None:
    """Each has one for a while."""
    scene = Scene(page, 1)
    scene.first.ask()
    scene.second.ask()
    scene.wait()
    assert not scene.first.exchange_ends(busy=True)
    scene.first.allowance.wait()
    scene.wait(TURN)
    assert scene.first.exchange_ends(busy=True)
    scene.wait()
    assert (scene.first.has, scene.second.has) == (0, 1)


def test_those_of_a_killed_worker_are_free(page: Page) -> None:
    """As soon as the master has seen its end."""
    cell = page.targets.claim(b"killed", 0)

    def take() -> None:
        page.become(1, os.getpid())
        allowance = SharedAllowance(2, 3, page, cell, Clock())
        assert allowance.take() and allowance.take() and allowance.wait()

    with child(holds(take)) as worker:
        worker.wait_so_far()
        ours = SharedAllowance(2, 3, page, cell, Clock())
        assert not ours.take()
        worker.kill()
    assert not ours.take()
    page.died(1)
    assert [ours.take() for _ in range(3)] == [True, True, False]


WORKERS = 4


@pytest.fixture
def crowd() -> Iterator[Page]:
    page = Page.make(WORKERS, 1024 * 1024)
    yield page


@pytest.mark.parametrize("most", [5])
def test_four_processes_never_have_too_many(crowd: Page, most: int) -> None:
    """Each counts them while nobody can take another. Where a lock was another's for too long, it has its share."""
    cell = crowd.targets.claim(b"crowd", 0)
    lock = crowd.targets.lock_of(cell)

    def run(number: int, so_far: object) -> None:
        crowd.become(number, os.getpid())
        allowance = SharedAllowance(most, 3, crowd, cell, Clock())
        for _ in range(3000):
            taken = [allowance.take() for _ in range(2)]
            while not crowd.locks.take(lock):
                pass
            assert allowance._sum(0) <= most or crowd.slots.total(LOCK_MISSES)
            crowd.locks.give_back(lock)
            for _ in range(sum(taken)):
                allowance.give_back()

    with ExitStack() as stack:
        workers = [stack.enter_context(child(partial(run, number))) for number in range(WORKERS)]
        assert [worker.wait() for worker in workers] == [0] * WORKERS
