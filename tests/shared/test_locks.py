"""Locks between workers: one at a time, and what becomes of those whose holder is stopped or killed."""

from __future__ import annotations

import pytest
from support.forked import child, holds

from apigw.shared.locks import STRUCTURE
from apigw.shared.page import Death, Page
from apigw.shared.slots import LOCK_MISSES, LOCK_WAITS


def held_by_other(page: Page, lock: int, what: int = 0) -> None:
    page.become(1, 1)
    assert page.locks.take(lock)
    if what:
        page.locks.writes(lock, what)


def counted(page: Page) -> tuple[int, int]:
    return page.slots.get(0, LOCK_WAITS), page.slots.get(0, LOCK_MISSES)


def test_one_at_a_time(page: Page) -> None:
    """Who does not get a lock in time is told so, and both the wait and the miss are counted."""
    locks = page.locks
    assert locks.take(3)
    assert not locks.take(3)
    assert locks.take(4)
    assert counted(page) == (1, 1)
    locks.give_back(3)
    assert locks.take(3)
    assert counted(page) == (1, 1)


def test_a_lock_that_is_free_is_not_given_back(page: Page) -> None:
    """Two would have it after that."""
    with pytest.raises(ValueError):
        page.locks.give_back(3)
    assert page.locks.take(3)
    assert not page.locks.take(3)


@pytest.mark.parametrize("count", [40_000])
def test_no_addition_is_lost(page: Page, count: int) -> None:
    """Two processes that read and write one word under one lock."""
    word = page.size // 8 - 1

    def add() -> None:
        done = 0
        while done < count:
            if page.locks.take(7):
                page.words[word] += 1
                page.locks.give_back(7)
                done += 1

    def work(so_far: object) -> None:
        page.become(1, 1)
        add()

    with child(work) as other:
        add()
        assert other.wait() == 0
    assert page.words[word] == 2 * count


def test_a_stopped_holder_keeps_its_lock(page: Page) -> None:
    """Others are told no, and go on with something else; once it runs again, all is as before."""
    with child(holds(lambda: held_by_other(page, 3))) as other:
        other.wait_so_far()
        other.stop()
        assert not page.locks.take(3)
        assert counted(page) == (1, 1)


@pytest.mark.parametrize("what", [0, STRUCTURE, 640])
def test_the_lock_of_a_killed_holder_is_freed(page: Page, what: int) -> None:
    """And what it was writing is emptied before anyone else can see it."""
    emptied: list[tuple[int, int]] = []
    page.locks.take(5)
    with child(holds(lambda: held_by_other(page, 3, what))) as other:
        other.wait_so_far()
        other.kill()
    assert page.locks.free_of(1, lambda *half: emptied.append(half)) == [(3, what)]
    assert emptied == ([(3, what)] if what else [])
    assert page.locks.take(3)
    assert not page.locks.take(5)


def test_a_lock_of_nobody_is_freed(page: Page) -> None:
    """Its holder was killed before it could say that it has it, or after it said that it has not."""
    with child(holds(lambda: page.locks._semaphores[3].acquire())) as other:
        other.wait_so_far()
        other.kill()
    assert page.died(1) == Death([(3, 0)], True)
    assert page.died(1) == Death([], True)
    assert page.locks.take(3)
