# Compiled: see docs/decisions/compiled.md
"""How a stage waits for a Deferred."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from apigw.contract.exchange import Exchange, Outcome, Waiting


class Awaited(Waiting):
    """A wait for a Deferred that fires with an outcome; made by ``wait_for``."""

    def __init__(self, exchange: Exchange, deferred: Deferred[Any]) -> None:
        self._exchange = exchange
        self._deferred = deferred
        self._returned = False
        self.fired = False
        self.outcome: Outcome = None
        self.error: BaseException | None = None
        deferred.addCallbacks(self._succeeded, self._failed)

    def returned(self) -> Awaited:
        """Mark it as returned by the stage: from now on the exchange goes on when the Deferred fires."""
        self._returned = True
        return self

    def cancel(self) -> None:
        self._deferred.cancel()

    def _succeeded(self, outcome: Outcome) -> None:
        self.fired = True
        self.outcome = outcome
        if self._returned:
            self._exchange.resume(outcome)

    def _failed(self, failure: Failure) -> None:
        if self._returned and failure.check(CancelledError):
            return
        self.fired = True
        self.error = failure.value
        if self._returned:
            assert self.error is not None
            self._exchange.fail(self.error)


def wait_for(exchange: Exchange, deferred: Deferred[Any]) -> Outcome:
    """What a stage returns to wait for a Deferred that fires with an ``Outcome``.

    If it has fired already, this is its outcome, or its error is raised. Cancelled with the exchange.
    """
    awaited = Awaited(exchange, deferred)
    if not awaited.fired:
        return awaited.returned()
    if awaited.error is not None:
        raise awaited.error
    return awaited.outcome
