# Compiled: see docs/decisions/compiled.md
"""The last stages of a route to a service: buffer the body, take a connection, send the request."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from apigw import errors
from apigw.contract.choice import Choice, Chooser
from apigw.contract.exchange import Exchange, Outcome, Route, Stage, Waiting
from apigw.proxy.admit import Admit, AwaitTargets, overloaded
from apigw.proxy.destination import Destination
from apigw.proxy.grpc import begin_call, call_of
from apigw.proxy.held_body import Buffers, HeldBody
from apigw.proxy.hooked_relay import HookedRelay
from apigw.proxy.max_forwards import BOUND, count_hop
from apigw.proxy.relay import Relay
from apigw.proxy.repeat import BeginTries, Try, repeated
from apigw.upstream.failover import CONNECT, Taken, connect
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.errors import ConnectFailed, PoolExhausted


def stages(destination: Destination, buffers: Buffers) -> tuple[Stage, ...]:
    first: list[Stage] = [HoldBody(destination, buffers)]
    if destination.upstream.resolving:
        first.append(AwaitTargets(destination.upstream))
    if destination.upstream.admission is not None:
        first.append(Admit(destination, destination.upstream.admission))
    if destination.upstream.retries is not None:
        first.append(BeginTries(destination, destination.upstream.retries, relay_of))
    return *first, Connect(destination)


def relay_of(exchange: Exchange, destination: Destination) -> Relay:
    """A new relay of the exchange, as its route needs one."""
    route = exchange.route
    if route.on_request_body or route.on_answer_body:
        return HookedRelay(exchange, destination)
    return Relay(exchange, destination)


class ChooseService(Stage):
    """Goes on with the route of one of several services. Each of ``routes`` begins with the stages that have run."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self.routes: tuple[Route, ...] = ()

    def run(self, exchange: Exchange) -> Outcome:
        choice, number = self._choice, -1
        for chooser in exchange.route.choosers:
            number = chooser.service(exchange, choice.services)
            if number >= 0:
                break
        exchange.route = self.routes[choice.choose(exchange) if number < 0 else number]
        return None


class HoldBody(Stage):
    """Waits for a small body, or the first piece of another, so that slow clients occupy no connection to the service.

    What a policy has read a part of goes nowhere: a service would take the next request for the rest.

    gRPC does not wait: its services may answer before the client sends anything. What is sent of a call is remembered,
    up to the same size, until its answer begins: it can be repeated if the service has not begun it. An OPTIONS or
    TRACE that may go no further is answered.
    """

    def __init__(self, destination: Destination, buffers: Buffers) -> None:
        self.destination = destination
        self._buffers = buffers

    def run(self, exchange: Exchange) -> Outcome:
        request = exchange.request
        if request.method in BOUND:
            answer = count_hop(exchange)
            if answer is not None:
                return answer
        length = request.content_length
        if length == 0 and request.method != b"POST":
            return None
        if request.body_wanted:  # by ``proxy.body.Reading``, which has not put it back
            raise errors.PolicyFailed("A policy of this route has begun to read the body, and has not read all of it.")
        destination = self.destination
        allowed, small = destination.max_body_size, destination.buffer_body
        if allowed is not None and length is not None and length > allowed:
            raise errors.BodyTooLarge(f"The body may have up to {allowed} bytes.")
        if call_of(exchange) is not None:
            begin_call(exchange, destination.deadlines)
            if small and length != 0:
                relay_of(exchange, destination).repeatable = HeldBody(self._buffers, small)
            return None
        if length == 0 or not small:
            return None
        circuit = destination.upstream.circuit
        if circuit is not None:
            circuit.check(destination.seconds())
        wanted = 1  # byte of it
        if length is not None and length <= small:  # more than comes: to its end. A hook may make it longer.
            wanted = 1 + (small if exchange.route.on_request_body else length)
        held = HeldBody(self._buffers, wanted)
        return held if relay_of(exchange, destination).hold_body(held) else None


class Connect(Stage):
    """Checks the circuit, chooses a target, takes a connection to it, and sends the request.

    Waits if no connection is idle. To send the request again the exchange comes here again, for the target ``wanted``.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination

    def run(self, exchange: Exchange) -> Outcome:
        destination = self._destination
        upstream = destination.upstream
        relay = None if exchange.relay is None else cast(Relay, exchange.relay)
        target = None if relay is None else relay.wanted
        if target is None:
            if upstream.circuit is not None:
                relay = relay or relay_of(exchange, destination)
                relay.permit = upstream.circuit.admit(destination.seconds())
            if exchange.route.choosers:
                target = chosen_by(exchange.route.choosers, exchange, upstream)
            if target is None:
                target = upstream.choose(destination.key(exchange))
            if target is None:
                raise upstream.none_healthy()
        relay = relay or relay_of(exchange, destination)
        if not relay.fresh:
            # Careful where it could not be repeated.
            connection = target.pool.take(exchange.request.content_length != 0)
            if connection is not None:
                if upstream.counts:
                    upstream.begin(target)
                tries = relay.tries
                relay.send(target, connection, None if tries is None else Try(relay, tries, target, connection))
                return None
        return Connecting(relay, target, connect(upstream, target, destination.key(exchange), relay.tries))


def chosen_by(choosers: tuple[Chooser, ...], exchange: Exchange, upstream: Upstream) -> Target | None:
    """The target that one of them chooses, of those that serve without restraint."""
    targets = [target for target in upstream.targets if target.available and not target.restrained]
    names = [target.name for target in targets]
    for chooser in choosers if len(targets) > 1 else ():
        number = chooser.target(exchange, names)
        if number >= 0:
            return targets[number]
    return None


class Connecting(Waiting):
    """A connection that is being made, or waited for. When it is there, the request is sent."""

    def __init__(self, relay: Relay, target: Target, connecting: Deferred[Taken]) -> None:
        self._relay = relay
        self._target = target
        self._began = 0.0 if relay.exchange.trace is None else relay.destination.seconds()
        self._connecting = connecting
        self._pause: Waiting | None = None
        connecting.addCallbacks(self._connected, self._failed).addErrback(self._broken)

    def cancel(self) -> None:
        self._connecting.cancel()
        if self._pause is not None:
            self._pause.cancel()

    def _connected(self, taken: Taken) -> None:
        relay = self._relay
        relay.exchange.waiting = None
        tries, target, connection = relay.tries, taken.target, taken.connection
        relay.send(target, connection, None if tries is None else Try(relay, tries, target, connection))

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        relay = self._relay
        error = failure.value
        assert error is not None
        if failure.check(ConnectFailed):
            relay.unreached = cast(ConnectFailed, error).target
            trace, destination = relay.exchange.trace, relay.destination
            if trace is not None:
                trace.unconnected(self._target.name, destination.upstream.name, self._began, destination.seconds())
            self._pause = repeated(relay, CONNECT, failed=True, unsent=True)
            if self._pause is not None:
                return
            relay.settle(failed=True)
            unreachable = errors.UpstreamUnreachable("The service cannot be reached.")
            unreachable.cause = str(error)
            error = unreachable
        elif failure.check(PoolExhausted):
            error = overloaded(relay.destination)
        relay.exchange.fail(error)

    def _broken(self, failure: Failure) -> None:
        assert failure.value is not None
        self._relay.exchange.fail(failure.value)
