"""What workers have admitted and not counted yet."""

from __future__ import annotations

from apigw.shared.debts import DEBTS, KNOWN_FOR
from apigw.shared.page import Page

NOW = 5_000_000_000


def test_all_see_the_debts_of_all(page: Page) -> None:
    """Those of a name, or of one whose word it shares; while somebody has said lately that there are some."""
    debts = page.debts
    page.slots.claim(1, 2)
    assert not debts.any(NOW)
    debts.add(0, 7, NOW)
    debts.add(1, 7 + DEBTS, NOW)
    debts.add(1, 8, NOW)
    assert (debts.of(7), debts.of(7 + DEBTS), debts.of(8), debts.of(9)) == (2, 2, 1, 0)
    assert debts.any(NOW + KNOWN_FOR - 1)
    assert not debts.any(NOW + KNOWN_FOR)
    debts.say(NOW + 1)
    debts.say(NOW - KNOWN_FOR)
    assert debts.any(NOW + KNOWN_FOR)
    debts.subtract(0, 7)
    assert (debts.of(7), debts.of(8)) == (1, 1)


def test_those_of_a_dead_worker_are_gone(page: Page) -> None:
    """And nobody else's."""
    page.slots.claim(1, 2)
    page.debts.add(0, 7, NOW)
    page.debts.add(1, 7, NOW)
    page.died(1)
    assert page.debts.of(7) == 1
