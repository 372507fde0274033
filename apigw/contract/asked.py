# Compiled: see docs/decisions/compiled.md
"""One question to another program, for which several exchanges wait."""

from __future__ import annotations

from typing import Any, final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


@final
class Asked:
    """A question that is under way, and all who wait for its answer. It is given up when all of them have left."""

    def __init__(self) -> None:
        self._waiters: dict[Deferred[Any], None] = {}
        self._asking: Deferred[Any] | None = None
        self._is_over = False
        self._outcome: Any = None

    def follow(self, asking: Deferred[Any]) -> None:
        """``asking`` fires with the answer, or fails."""
        self._asking = asking
        asking.addCallbacks(self._fire, self._fail)

    def waiter(self) -> Deferred[Any]:
        """Fires with the answer, or with the exception with which the question has failed: each who waits makes an
        error of its own of it, as what refuses a request may add fields to its error."""
        waiter: Deferred[Any] = Deferred(self._left)
        if self._is_over:
            waiter.callback(self._outcome)
        else:
            self._waiters[waiter] = None
        return waiter

    def _left(self, waiter: Deferred[Any]) -> None:
        # Nobody is in ``_waiters`` any more while all are told: what one is told can have another leave.
        if waiter in self._waiters:
            del self._waiters[waiter]
            if not self._waiters and self._asking is not None:
                self._asking.cancel()

    def _fail(self, failure: Failure) -> None:
        self._fire(failure.value)

    def _fire(self, outcome: Any) -> None:
        self._is_over, self._outcome = True, outcome
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.called:  # cancelled by what one before it led to
                waiter.callback(outcome)
