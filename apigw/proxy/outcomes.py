# Compiled: see docs/decisions/compiled.md
"""What an exchange tells the circuit of its service."""

from __future__ import annotations

from typing import Final

from apigw.contract.exchange import Exchange, Relaying
from apigw.proxy.destination import Destination
from apigw.proxy.grpc import CANCEL
from apigw.upstream.target import Target
from apigw.wire.errors import UpstreamError, UpstreamLost
from apigw.wire.request import Request

FAILURES: Final = frozenset({500, 502, 503, 504})
"""Statuses of a service that count as failures of the service for its circuit."""


class Outcomes(Relaying):
    """The part of a relay that reports. Each try of an exchange is reported for itself (``proxy.repeat``)."""

    exchange: Exchange
    request: Request
    destination: Destination
    target: Target | None
    permit: int | None
    """The circuit's permit, until its outcome is reported."""
    full: bool
    """Whether the buffer towards the service is full."""

    def its_fault(self, error: UpstreamError) -> bool:
        """Whether ``error`` is one of the service. Else it had not got all of the request: it may have been tired of
        waiting for the client, or refused the body."""
        if not isinstance(error, UpstreamLost):
            return True
        cancelled = self.exchange.call is not None and error.reset == CANCEL
        return self.request.body_complete and not self.full and not cancelled

    def settle(self, failed: bool) -> None:
        """Tell the circuit how the service did. Exchanges that end otherwise say nothing of it."""
        permit, self.permit = self.permit, None
        if permit is not None:
            circuit = self.destination.upstream.circuit
            assert circuit is not None
            (circuit.failure if failed else circuit.success)(permit, self.destination.seconds())
