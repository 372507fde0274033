# Compiled: see docs/decisions/compiled.md
"""What an exchange tells the circuit of its service, and its target."""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from apigw import errors
from apigw.contract.exchange import AtEnd, Exchange, Relaying
from apigw.proxy.destination import Destination
from apigw.proxy.grpc import CANCEL, UNAVAILABLE, passed_on
from apigw.upstream.failover import Tries, again, instead
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.errors import HeadTooLarge, UpstreamError, UpstreamLost, UpstreamTimedOut
from apigw.wire.interfaces import UpstreamConnection
from apigw.wire.request import Request

FAILURES: Final = frozenset({500, 502, 503, 504})
"""Statuses of a service that count as failures of the service for its circuit."""

_KINDS: Final[dict[type[UpstreamError], str]] = {UpstreamTimedOut: "timeout", UpstreamLost: "lost"}
"""The kinds of errors after a request was sent, in metrics and traces; any other is ``protocol``."""

log = Logger(namespace=__name__)


class _Amended(AtEnd):
    """An exchange that was sent to another target is over."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        upstream.amended += 1

    def run(self, exchange: Exchange) -> None:
        self._upstream.amended -= 1


class Outcomes(Relaying):
    """The part of a relay that reports. Each try of an exchange is reported for itself (``proxy.repeat``)."""

    exchange: Exchange
    request: Request
    destination: Destination
    target: Target | None
    connection: UpstreamConnection | None
    permit: int | None
    """The circuit's permit, until its outcome is reported."""
    full: bool
    """Whether the buffer towards the service is full."""
    tries: Tries | None
    wanted: Target | None
    repeated: bool
    fresh: bool

    def whole(self) -> bool:
        raise NotImplementedError

    def part(self) -> UpstreamConnection | None:
        """The exchange with the target is over."""
        connection, self.connection = self.connection, None
        if connection is not None:
            trace, upstream = self.exchange.trace, self.destination.upstream
            if trace is not None:
                trace.end(self.destination.seconds(), connection.version)
            if upstream.counts:
                assert self.target is not None
                upstream.end(self.target)
        return connection

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
            if failed:
                circuit.failure(permit, self.destination.seconds())
            else:
                circuit.success(permit, self.destination.seconds())

    def target_did(self, status: int) -> None:
        """Tell the target how it did, for its ejection, and the trace."""
        target = self.target
        assert target is not None
        call, trace = self.exchange.call, self.exchange.trace
        if trace is not None:
            trace.answered(status)
        if status >= 500:
            target.failed(f"status {status}")
        elif call is not None and call.status == UNAVAILABLE:
            target.failed("grpc-status UNAVAILABLE")
        else:
            target.succeeded()

    def sent_elsewhere(self, status: int, whole: bool) -> bool:
        """The target has answered with a ``status`` that says that it failed: tell it. Send the request to another
        one if that is for the best (``failover.instead``); returns whether it is so, and the answer is dropped.

        ``whole``: the answer is complete. The circuit gets to know the second one.
        """
        self.target_did(status)
        if self.tries is not None:
            return False
        target, exchange, upstream = self.target, self.exchange, self.destination.upstream
        assert target is not None
        key = self.destination.key(exchange)
        other = instead(upstream, target, key, status, self.request.method, self.whole(), self.repeated)
        if other is None:
            return False
        connection = self.part()
        assert connection is not None
        if not whole:
            connection.abandon()
        exchange.at_end = (*exchange.at_end, _Amended(upstream))
        self.wanted = other
        self.repeated = True
        exchange.at = len(exchange.route.stages) - 1  # ``forward.Connect``
        exchange.resume(None)
        return True

    def sent_again(self, error: UpstreamError) -> bool:
        """The exchange with the target has ended with ``error``. Send the request again if the service has not got it;
        returns whether that is so."""
        connection, target = self.part(), self.target
        if isinstance(error, HeadTooLarge):
            return False  # as for any other target, which is of the same service
        exchange, upstream = self.exchange, self.destination.upstream
        assert connection is not None
        assert target is not None
        kind = _KINDS.get(type(error), "protocol")
        upstream.series.error(kind)
        if exchange.trace is not None:
            exchange.trace.failed(kind)
        told = exchange.status >= 500 or (connection.used and isinstance(error, UpstreamLost) and error.silent)
        if self.its_fault(error) and not told:
            target.failed(str(error))
        method, key = self.request.method, self.destination.key(exchange)
        other = again(upstream, target, key, error, method, self.whole(), self.repeated, connection.used)
        if other is None:
            return False
        self.wanted = other
        self.fresh = self.repeated = True
        exchange.at = len(exchange.route.stages) - 1  # ``forward.Connect``
        exchange.resume(None)
        return True

    def failed(self, error: UpstreamError) -> None:
        """The request is not sent again after it has ended with ``error``."""
        destination, exchange = self.destination, self.exchange
        if isinstance(error, HeadTooLarge):
            refusal: errors.GatewayError = errors.HeadersTooLarge("The headers are larger than the service takes.")
            refusal.cause = str(error)
            exchange.driver.refuse(exchange, refusal)
            return
        reset = error.reset if exchange.call is not None and isinstance(error, UpstreamLost) else None
        if self.its_fault(error):
            self.settle(failed=True)
        if isinstance(error, UpstreamTimedOut):
            exchange.driver.refuse(exchange, errors.UpstreamTimeout("The service did not answer in time."))
        else:
            if destination.log_decisions:
                name = None if self.target is None else self.target.name
                log.debug("{id}: {target}: {error}", id=exchange.id.decode("ascii"), target=name, error=error)
            refusal = errors.UpstreamProtocolError("The service gave no valid answer.")
            refusal.cause = str(error)
            refusal.reset = None if reset is None else passed_on(reset)
            exchange.driver.refuse(exchange, refusal)
