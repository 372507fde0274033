"""The metrics of the memory that workers share."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily

from apigw.shared.page import Page
from apigw.shared.slots import LOCK_MISSES, LOCK_WAITS, WITHOUT_ROOM

FAMILIES = (
    (LOCK_WAITS, "gateway_shared_lock_waits", "Times that a lock of the workers' shared memory was not free at once."),
    (
        LOCK_MISSES,
        "gateway_shared_lock_misses",
        "Times that it was not free in time: a worker decided alone.",
    ),
    (WITHOUT_ROOM, "gateway_shared_memory_full", "Times that there was no room in the workers' shared memory."),
)


class PageSeries:
    """Collects what this worker has counted in its slot since it began: the slot goes on with its predecessor's."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._before = [self._count(word) for word, _, _ in FAMILIES]

    def collect(self) -> Iterator[CounterMetricFamily]:
        for before, (word, name, documentation) in zip(self._before, FAMILIES, strict=True):
            yield CounterMetricFamily(name, documentation, self._count(word) - before)

    def _count(self, word: int) -> int:
        return self._page.slots.get(self._page.worker, word)
