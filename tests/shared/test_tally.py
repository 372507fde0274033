"""Numbers that each process counts for itself are bounded in their sum."""

from __future__ import annotations

from apigw.shared.page import Page
from apigw.shared.slots import BUFFERED, IN_FLIGHT
from apigw.shared.tally import SharedTally, Tally


def test_one_process() -> None:
    """Its number is the sum."""
    tally = Tally()
    assert (tally.add(2), tally.add(1)) == (2, 3)
    tally.subtract(3)
    assert tally.own == 0


def test_several_processes(page: Page) -> None:
    """The sum is of all, each word for itself, and without what a worker had that is gone."""
    for worker in range(2):
        page.slots.claim(worker, 100 + worker)
    first, second = (SharedTally(page.slots, worker, IN_FLIGHT) for worker in range(2))
    assert (first.add(2), second.add(3), first.add(1)) == (2, 5, 6)
    assert (first.own, second.own) == (3, 3)
    assert SharedTally(page.slots, 0, BUFFERED).add(7) == 7
    first.subtract(1)
    assert second.add(1) == 6
    page.slots.clear(0)
    assert second.add(1) == 5
