"""Numbers that each process counts for itself are bounded in their sum."""

from __future__ import annotations

import pytest

from apigw.shared.page import Page
from apigw.shared.slots import BUFFERED, IN_FLIGHT
from apigw.shared.tally import FASTEST, LOOK, SharedTally, Tally


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


def test_one_process_is_bounded() -> None:
    tally = Tally()
    assert [tally.one_more(2, 0.0) for _ in range(3)] == [False, False, True]
    tally.one_less()
    tally.one_less()
    assert not tally.one_more(2, 0.0)


@pytest.mark.parametrize("most", [3, FASTEST, 10 * FASTEST])
def test_several_processes_are_bounded_together(page: Page, most: int) -> None:
    """Exactly, whatever the others have added since they were looked at."""
    for worker in range(2):
        page.slots.claim(worker, 100 + worker)
    first, second = (SharedTally(page.slots, worker, IN_FLIGHT) for worker in range(2))
    assert not first.one_more(most, 0.0)
    added = min(most - 1, FASTEST)
    assert not any(second.one_more(most, LOOK / 2) for _ in range(added))
    more = [first.one_more(most, LOOK / 2) for _ in range(most)]
    assert more.count(False) == most - 1 - added
    assert more.index(True) == most - 1 - added
    first.one_less()
    assert page.slots.total(IN_FLIGHT) == most + added


def test_others_are_looked_at_again_in_time(page: Page) -> None:
    """What they have is known a millisecond later, also where the bound is far."""
    for worker in range(2):
        page.slots.claim(worker, 100 + worker)
    first, second = (SharedTally(page.slots, worker, IN_FLIGHT) for worker in range(2))
    most = 10 * FASTEST
    first.one_more(most, 0.0)
    second.add(most)
    assert first.one_more(most, LOOK)
