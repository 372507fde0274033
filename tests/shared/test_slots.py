"""Slots of workers: what is added up, and who counts as living."""

from __future__ import annotations

import pytest

from apigw.shared.page import Page
from apigw.shared.slots import (
    AWAY,
    CONNECTIONS,
    LOCK_WAITS,
    MOST_WORKERS,
    NOBODY,
    PID,
    READY,
    TICK,
    Slots,
)


@pytest.fixture
def slots(page: Page) -> Slots:
    """Workers 0 to 3 with 10, 20, 5 and 1 connections; 2 is not ready, and 3 has not ticked for as long as is borne."""
    slots = page.slots
    for worker, (connections, ready, tick) in enumerate([(10, 1, 9_000), (20, 1, 9_500), (5, 0, 9_900), (1, 1, 6_999)]):
        slots.claim(worker, 100 + worker)
        slots.put(worker, CONNECTIONS, connections)
        slots.put(worker, READY, ready)
        slots.put(worker, TICK, tick)
    return slots


def test_a_total_is_of_all(slots: Slots) -> None:
    """Whether they are ready or not."""
    assert slots.total(CONNECTIONS) == 36


@pytest.mark.parametrize(("now", "least"), [(9_999, 1), (10_000, 10), (12_000, 10), (12_001, 20), (12_501, NOBODY)])
def test_the_least_is_of_the_living(slots: Slots, now: int, least: int) -> None:
    """One that hangs has few connections, and is not what others should wait for."""
    assert slots.least_connections(now) == least


def test_one_that_is_away_is_not_the_least(slots: Slots) -> None:
    """It has no file for another connection; it is there for all else."""
    slots.put(0, AWAY, 1)
    assert slots.least_connections(10_000) == 20
    assert slots.checker(10_000) == 0


@pytest.mark.parametrize(("now", "checker"), [(10_000, 0), (12_000, 0), (12_001, 1), (12_501, 2), (12_901, -1)])
def test_the_checker_is_the_lowest_living(slots: Slots, now: int, checker: int) -> None:
    """One that is not ready is it while no other lives: all drain, and operators still see how it goes."""
    assert slots.checker(now) == checker


def test_a_dead_worker_leaves_an_empty_slot(slots: Slots) -> None:
    """But what it has counted stays counted."""
    slots.add(0, LOCK_WAITS, 3)
    slots.clear(0)
    assert [slots.get(0, word) for word in (PID, READY, CONNECTIONS, TICK)] == [0, 0, 0, 0]
    assert slots.total(CONNECTIONS) == 26
    slots.claim(0, 999)
    slots.add(0, LOCK_WAITS, 1)
    assert slots.get(0, PID) == 999
    assert slots.total(LOCK_WAITS) == 4


def test_there_are_so_many(slots: Slots) -> None:
    """Nobody writes beside them."""
    slots.claim(MOST_WORKERS - 1, 7)
    slots.add(MOST_WORKERS - 1, CONNECTIONS, 4)
    assert slots.total(CONNECTIONS) == 40
    for worker in (-1, MOST_WORKERS):
        with pytest.raises(ValueError):
            slots.claim(worker, 7)
