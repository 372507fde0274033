# Compiled: see docs/decisions/compiled.md
"""The last stages of each route that leads to a service: hold the body, take a connection, send the request."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from apigw import errors
from apigw.contract.exchange import Exchange, Outcome, Stage, Waiting
from apigw.proxy.destination import Destination
from apigw.proxy.headers import is_grpc
from apigw.proxy.held_body import Buffers, HeldBody
from apigw.proxy.relay import Relay
from apigw.wire.errors import ConnectFailed, PoolExhausted


def stages(destination: Destination, buffers: Buffers) -> tuple[Stage, ...]:
    return HoldBody(destination, buffers), Connect(destination), Send()


class HoldBody(Stage):
    """Waits for a small body, or the first piece of another, so that no slow client holds a connection to the service.

    gRPC does not wait: its services may answer before the client says anything.
    """

    def __init__(self, destination: Destination, buffers: Buffers) -> None:
        self.destination = destination
        self._buffers = buffers

    def run(self, exchange: Exchange) -> Outcome:
        destination = self.destination
        relay = cast(Relay, exchange.relay)
        relay.destination = destination
        request = exchange.request
        length, allowed, small = request.content_length, destination.max_body_size, destination.buffer_body
        if length == 0:
            return None
        if allowed is not None and length is not None and length > allowed:
            raise errors.BodyTooLarge(f"The body may have up to {allowed} bytes.")
        if request.body_complete or not small or is_grpc(request.headers):
            return None
        circuit = destination.upstream.circuit
        if circuit is not None:
            circuit.check(destination.seconds())
        wanted = 1 if length is None or length > small else length + 1  # more than comes: to its end
        held = HeldBody(self._buffers, wanted)
        return held if relay.hold_body(held) else None


class Connect(Stage):
    """Asks the circuit, chooses a target, and takes a connection to it: an idle one at once, else a new one."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination

    def run(self, exchange: Exchange) -> Outcome:
        relay = cast(Relay, exchange.relay)
        upstream = self._destination.upstream
        target = relay.wanted
        if target is None:
            if upstream.circuit is not None:
                relay.permit = upstream.circuit.admit(self._destination.seconds())
            target = upstream.pick()
            connection = target.pool.take(careful=exchange.request.content_length != 0)
            if connection is not None:
                relay.target, relay.connection = target, connection
                return None
        return Connecting(relay, upstream.connect(target))


class Connecting(Waiting):
    """A connection that is being made, or waited for."""

    def __init__(self, relay: Relay, connecting: Deferred[Any]) -> None:
        self._relay = relay
        self._connecting = connecting
        connecting.addCallbacks(self._connected, self._failed)

    def cancel(self) -> None:
        self._connecting.cancel()

    def _connected(self, connected: Any) -> None:
        relay = self._relay
        relay.target, relay.connection = connected
        relay.exchange.resume(None)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        relay = self._relay
        error = failure.value
        assert error is not None
        if failure.check(ConnectFailed):
            relay.settle_failure()
            error = errors.UpstreamUnreachable("The service cannot be reached.")
        elif failure.check(PoolExhausted):
            assert relay.destination is not None
            relay.destination.upstream.series.error("overloaded")
            error = errors.Overloaded("The service has too many requests waiting.", [(b"retry-after", b"1")])
        relay.exchange.fail(error)


class Send(Stage):
    """Sends the request. What comes back goes to the relay."""

    def run(self, exchange: Exchange) -> Outcome:
        cast(Relay, exchange.relay).send()
        return None
