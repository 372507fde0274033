# Compiled: see docs/decisions/compiled.md
"""The ``retry`` of a service, and its budget. What is sent again is decided in ``failover``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from twisted.logger import Logger

from apigw.config.model import Retry
from apigw.shared.page import Page
from apigw.shared.tally import LoadTally, Tally

IDEMPOTENT: Final = frozenset(b"GET HEAD PUT DELETE OPTIONS TRACE PROPFIND REPORT SEARCH".split())
"""RFC 9110 §9.2.2, and its registry."""

log = Logger(namespace=__name__)

LEAST: Final = 3
"""So many retries of a service may always be under way, as in Envoy: else a service with few requests had none."""


class Budget:
    """How many retries of a service may be under way at a time, in all processes: ``share`` of its requests, and always
    ``LEAST``.

    Of the requests, ``share`` at most are then retries. So if each takes as long as any other, and all fail, the
    service gets 1 / (1 − share) requests for each of the clients: 1.25 with 20 %.
    """

    def __init__(self, share: float, in_flight: Tally, retrying: Tally) -> None:
        self.share = share
        self.in_flight = in_flight
        self.retrying = retrying

    def take(self) -> bool:
        """A place for a retry. False if there is none."""
        retrying = self.retrying.add(1)
        if retrying <= LEAST or retrying <= self.share * self.in_flight.total():
            return True
        self.retrying.subtract(1)
        return False

    def give_back(self) -> None:
        self.retrying.subtract(1)

    def used(self, now: float) -> None:
        """Say that it is in use. Called twice a second where others share it."""


@final
class SharedBudget(Budget):
    """That of all workers, in ``cell`` of ``page.services``. What a worker that dies had in flight is gone with it."""

    def __init__(self, share: float, page: Page, cell: int) -> None:
        number = 2 * page.services.number_of(cell)
        in_flight, retrying = (LoadTally(page.retries, page.worker, number + each) for each in range(2))
        super().__init__(share, in_flight, retrying)
        self._services = page.services
        self._cell = cell

    def used(self, now: float) -> None:
        self._services.use(self._cell, now)


def budget_of(service: str, share: float, page: Page | None, now: float) -> Budget:
    """The budget of a service, at ``now``. Workers share it whatever else of the service's configuration changes."""
    if page is not None:
        cell = page.services.claim(service.encode(), now)
        if cell:
            return SharedBudget(share, page, cell)
        log.warn("{service}: each worker has a budget of its own, as the shared page has no room", service=service)
    return Budget(share, Tally(), Tally())


@final
class Retries:
    """The ``retry`` of a service. ``random`` returns numbers from 0 to below 1."""

    def __init__(self, config: Retry, budget: Budget, random: Callable[[], float]) -> None:
        self.budget = budget
        self.random = random
        self.on = frozenset(config.on)
        self.tries = config.tries
        self.per_try_timeout = config.per_try_timeout
        self.methods: frozenset[bytes] | None = None
        """None for all."""
        if "all" not in config.methods:
            named = frozenset(method.encode("ascii") for method in config.methods)
            self.methods = named | IDEMPOTENT if "idempotent" in config.methods else named
