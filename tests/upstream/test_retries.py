"""The budget of a service's retries."""

from __future__ import annotations

import pytest

from apigw.shared.page import Page
from apigw.shared.tally import Tally
from apigw.upstream.retries import Budget, budget_of


@pytest.mark.parametrize(
    ("share", "in_flight", "most"), [(0.2, 1, 3), (0.2, 15, 3), (0.2, 19, 3), (0.2, 20, 4), (0.2, 64, 12), (1.0, 7, 7)]
)
def test_so_many_retries_at_a_time(share: float, in_flight: int, most: int) -> None:
    """A share of the requests in flight, and always three."""
    budget = Budget(share, Tally(), Tally())
    budget.in_flight.add(in_flight)
    assert [budget.take() for _ in range(most + 1)] == [True] * most + [False]
    budget.give_back()
    assert budget.take()
    assert budget.retrying.own == most


def test_workers_have_one_budget(page: Page) -> None:
    """Requests and retries are those of all workers, and of the service before and after a reload."""
    page.become(0, 1)
    first = budget_of("main", 0.5, page, 1.0)
    page.become(1, 2)
    second, other = (budget_of(name, 0.5, page, 1.0) for name in ("main", "other"))
    page.become(0, 1)
    reloaded = budget_of("main", 0.5, page, 2.0)
    first.in_flight.add(4)
    second.in_flight.add(4)
    assert [budget.take() for budget in (first, second, reloaded, second, first)] == [True] * 4 + [False]
    assert other.take()
    first.give_back()
    assert second.take()
    assert not reloaded.take()
    page.died(1)
    assert first.in_flight.total() == 4
    assert first.retrying.total() == 1
