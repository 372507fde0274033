"""What a worker says of the memory that it shares."""

from __future__ import annotations

from apigw.process.page_series import FAMILIES, PageSeries
from apigw.shared.page import Page
from apigw.shared.slots import LOCK_MISSES, LOCK_WAITS


def counts(series: PageSeries) -> dict[str, float]:
    return {family.name: family.samples[0].value for family in series.collect()}


def test_a_worker_counts_its_own() -> None:
    """What its predecessor in the slot had counted is in the sum of those that are gone."""
    page = Page.make(2, 1 << 20)
    page.become(0, 1000)
    first = PageSeries(page)
    page.slots.add(0, LOCK_WAITS, 3)
    page.slots.add(0, LOCK_MISSES, 1)
    page.slots.add(1, LOCK_WAITS, 5)
    assert list(counts(first).values()) == [3, 1, 0]
    page.become(0, 1001)
    successor = PageSeries(page)
    page.slots.add(0, LOCK_WAITS, 2)
    assert counts(successor) == dict(zip([name for _, name, _ in FAMILIES], [2, 0, 0], strict=True))
    page.close()
