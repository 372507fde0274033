# Compiled: see docs/decisions/compiled.md
"""Stages of a route to a service that may have to wait before a target is chosen; only where the service needs them."""

from __future__ import annotations

from functools import partial

from twisted.python.failure import Failure

from apigw import errors
from apigw.contract.awaited import wait_for
from apigw.contract.exchange import AtEnd, Exchange, Outcome, Stage
from apigw.proxy.destination import Destination
from apigw.upstream.admission import Admission
from apigw.upstream.upstream import Upstream
from apigw.wire.errors import PoolExhausted


class Place(AtEnd):
    """The place of an exchange among the ``max_requests`` of its service; free at its end, or when it is a tunnel."""

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    def run(self, exchange: Exchange) -> None:
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.leave()


def leave(exchange: Exchange) -> None:
    """Free its place, if it has one."""
    for each in exchange.at_end:
        if isinstance(each, Place):
            each.run(exchange)


class AwaitTargets(Stage):
    """Waits until the names of the service's targets have been looked up for the first time."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def run(self, exchange: Exchange) -> Outcome:
        return wait_for(exchange, self._upstream.when_resolved()) if self._upstream.resolving else None


class Admit(Stage):
    """Waits until the service may have another request (``max_requests``)."""

    def __init__(self, destination: Destination, admission: Admission) -> None:
        self._destination = destination
        self._admission = admission

    def run(self, exchange: Exchange) -> Outcome:
        admission = self._admission
        if admission.enter():
            exchange.at_end += (Place(admission),)
            return None
        destination = self._destination
        circuit = destination.upstream.circuit
        if circuit is not None:
            circuit.check(destination.seconds())
        return wait_for(exchange, admission.wait().addCallbacks(partial(self._entered, exchange), self._refused))

    def _entered(self, exchange: Exchange, _: None) -> None:
        exchange.at_end += (Place(self._admission),)

    def _refused(self, failure: Failure) -> None:
        failure.trap(PoolExhausted)
        raise overloaded(self._destination)


def overloaded(destination: Destination) -> errors.Overloaded:
    """Counts it, and returns the error for a request that found no place in time."""
    destination.upstream.series.error("overloaded")
    return errors.Overloaded("The service has too many requests waiting.", [(b"retry-after", b"1")])
