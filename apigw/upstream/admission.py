# Compiled: see docs/decisions/compiled.md
"""``max_requests``: how many requests a service gets at a time. More wait in turn, as for a connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import final

from twisted.internet.defer import Deferred

from apigw.wire.allowance import Allowance
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import PoolExhausted


@final
class Waiter:
    """A request that waits for its turn; until ``deadline``, in seconds of the reactor."""

    def __init__(self, deadline: float, forget: Callable[[Waiter], None]) -> None:
        self.deadline = deadline
        self.admitted: Deferred[None] = Deferred(self._cancelled)
        self._forget = forget

    def deadline_passed(self) -> None:
        self._forget(self)
        self.admitted.errback(PoolExhausted("the service has as many requests as it may have"))

    def _cancelled(self, _: object) -> None:
        self._forget(self)


@final
class Admission:
    """``allowance`` has the maxima, perhaps of all workers. A request waits up to ``patience`` seconds."""

    def __init__(self, allowance: Allowance, patience: float, deadlines: Deadlines) -> None:
        self._allowance = allowance
        self._patience = patience
        self._deadlines = deadlines
        self._waiting: deque[Waiter] = deque()
        self._admitting = False
        allowance.retries(self._admit)

    def enter(self) -> bool:
        """Take a place, if one is free and nobody waits. ``leave`` gives it back."""
        return not self._waiting and self._allowance.take()

    def wait(self) -> Deferred[None]:
        """Fires with a place. Fails with ``PoolExhausted`` if too many wait, or none became free in time."""
        waiter = Waiter(self._deadlines.seconds() + self._patience, self._forget)
        if not self._allowance.wait():
            waiter.admitted.errback(PoolExhausted("too many requests wait for the service"))
            return waiter.admitted
        self._waiting.append(waiter)
        self._deadlines.watch(waiter)
        return waiter.admitted

    def leave(self) -> None:
        """A request has ended."""
        self._allowance.give_back()
        self._admit()

    def used(self, now: float) -> None:
        """Say that it is in use. Called twice a second where others share it."""
        self._allowance.used(now)

    def _admit(self) -> None:
        if self._admitting:
            return  # a request has ended at once: the loop below goes on
        self._admitting = True
        while self._waiting and self._allowance.take():
            waiter = self._waiting[0]
            self._forget(waiter)
            waiter.admitted.callback(None)
        self._admitting = False

    def _forget(self, waiter: Waiter) -> None:
        self._deadlines.forget(waiter)
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._allowance.leave()
