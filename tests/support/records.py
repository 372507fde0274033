"""What circuits know: in one process, or shared by workers."""

from __future__ import annotations

from itertools import count

from apigw.config.model import CircuitBreaker
from apigw.shared.page import Page
from apigw.upstream.record import Record
from apigw.upstream.shared_record import SharedRecord


class Records:
    """Makes the records of a circuit: one for each of ``workers``. Without a page there is one, of this process."""

    def __init__(self, page: Page | None = None, workers: int = 2) -> None:
        self._page = page
        self._workers = workers
        self._names = count()

    def __call__(self, config: CircuitBreaker) -> list[Record]:
        page = self._page
        if page is None:
            return [Record(config)]
        cell = page.circuits.claim(b"circuit %d" % next(self._names), 0)
        assert cell
        return [of_worker(page, worker, config, cell) for worker in range(self._workers)]


def of_worker(page: Page, worker: int, config: CircuitBreaker, cell: int) -> SharedRecord:
    """The record that this worker would have; this process is worker 0 again after that."""
    page.become(worker, worker + 1)
    record = SharedRecord(config, page, cell)
    page.become(0, 1)
    return record
