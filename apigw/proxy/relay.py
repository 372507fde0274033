# Compiled: see docs/decisions/compiled.md
"""Relays the bytes of an exchange: the request's body to the service, and the service's answer to the client."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import classImplements

from apigw import errors
from apigw.contract.exchange import Exchange
from apigw.proxy.admit import leave
from apigw.proxy.destination import Destination
from apigw.proxy.grpc import UNAVAILABLE, status_in, with_less_time
from apigw.proxy.headers import client_headers, client_trailers, upstream_fields, upstream_trailers
from apigw.proxy.held_body import HeldBody
from apigw.proxy.hooks import hooked
from apigw.proxy.outcomes import FAILURES, Outcomes
from apigw.upstream.failover import Tries
from apigw.upstream.target import Target
from apigw.wire.deadlines import NEVER
from apigw.wire.errors import ClientLost, Refused, UpstreamError
from apigw.wire.headers import Headers
from apigw.wire.interfaces import Receiver, UpstreamConnection
from apigw.wire.tunnel import join


class Relay(Outcomes):
    """Relays in both directions, with back-pressure: neither side sends faster than the other reads."""

    def __init__(self, exchange: Exchange, destination: Destination) -> None:
        self.exchange = exchange
        self.request = exchange.request
        self.destination = destination
        self.target = None
        self.permit = None
        self.full = False
        self.connection = None
        self.held: HeldBody | None = None
        """The buffered part of the body."""
        self.repeatable: HeldBody | None = None
        """What was sent of a gRPC call, while that may be repeated."""
        self.tries: Tries | None = None
        """Only for a service with ``retry``."""
        self.wanted: Target | None = None
        """The target for sending the request again."""
        self.fresh = False
        """Whether that takes a new connection: one that was kept has just failed for being old."""
        self.repeated = False
        """Whether the request was sent again because the service had not got it, which is done once."""
        self.unreached = ""
        """The name of the target to which no connection could be made, in the last try."""
        self.sent_at = 0.0
        self.upstream_ended_at = 0.0
        self.trailers: Headers | None = None
        """Those of the service's answer, for the client."""
        self.event_stream = False
        self.tunnelled = False
        self._tunnel: Deferred[None] | None = None
        self.unread = False
        """Whether the client takes the answer slower than it comes."""
        exchange.relay = self
        self.request.listener = self

    # The request.

    def whole(self) -> bool:
        """Whether the request could be sent again: all that was read of its body is still there, or it has none."""
        request = self.request
        if request.content_length == 0 or self.repeatable is not None:
            return True
        return self.held is not None and self.is_complete()

    def length(self) -> int | None:
        """That of the body as the service gets it, as far as it is known."""
        return self.request.content_length

    def is_complete(self) -> bool:
        """Whether all that is to be sent of the body is there."""
        return self.request.body_complete

    def read_on(self) -> None:
        """Read more of the body."""
        self.request.resume_body()

    def send(self, target: Target, connection: UpstreamConnection, receiver: Receiver | None = None) -> None:
        """Send the request to ``target``. From then on the answer is relayed, or what ``receiver`` lets pass of it."""
        self.target, self.connection = target, connection
        self.unreached = ""
        self.full = False
        known, complete = self.length(), self.is_complete()
        exchange, request, destination = self.exchange, self.request, self.destination
        host = exchange.authority
        if not host:
            host = request.authority if destination.preserve_host and request.authority else target.authority
        own = () if exchange.principal is None else exchange.principal.fields
        peers = exchange.peers
        trusted = peers.some and peers.trusts(request.stream.peer)
        fields = upstream_fields(
            request, trusted, exchange.id, own, destination.copied, exchange.withheld, exchange.sent
        )
        call = exchange.call
        if call is not None and call.deadline != NEVER:
            fields = with_less_time(fields, call.deadline - destination.seconds())
        length, upgrade = request.content_length, request.upgrade
        self.sent_at = destination.seconds()
        if exchange.trace is not None:
            exchange.trace.begin(target.name, destination.upstream.name, self.sent_at, fields)
        timeout, trailers = destination.timeout, request.wants_trailers
        if length is None and (not request.body_complete or call is not None):
            request.is_stream = True
            timeout = destination.stream_timeout
        if self.tries is not None:
            timeout = self.tries.timeout(timeout, self.sent_at)
        to = receiver or self
        connection.send(request.method, exchange.target, host, fields, known, upgrade, timeout, to, trailers)
        held = self.held
        if held is None:
            if self.repeatable is not None and request.body_wanted:
                self._repeat(connection, self.repeatable)
            elif complete and not request.bytes_received:
                connection.finish(None if request.trailers is None else self._trailers())
            else:
                if not request.bytes_received:
                    connection.flush()  # else the head goes out with the first piece
                request.read_body()
            return
        connection.write(held.read())
        if complete:
            connection.finish(self._trailers())
        else:
            self._release_body()
            if not self.full:
                self.read_on()

    def _repeat(self, connection: UpstreamConnection, repeatable: HeldBody) -> None:
        """Send once more what was sent of a call, and then what else comes."""
        connection.write(repeatable.read())
        if self.is_complete():
            connection.finish(self._trailers())
        else:
            connection.flush()
            if not self.full:
                self.read_on()

    def hold_body(self, held: HeldBody) -> bool:
        """Read the body until ``held`` has enough. Returns whether the exchange must wait for that."""
        self.held = held
        self.request.read_body()
        return held.waiting and not self.exchange.ended

    # wire.request.Listener: the client's body, and its end.

    def body_received(self, data: bytes) -> None:
        if not self.is_too_large():
            self.take_body(data)

    def is_too_large(self) -> bool:
        """Whether more of the body has come than may; then the request is refused."""
        limit = self.destination.max_body_size
        if limit is None or self.request.bytes_received <= limit:
            return False
        self.exchange.driver.refuse(self.exchange, errors.BodyTooLarge(f"The body may have up to {limit} bytes."))
        return True

    def take_body(self, data: bytes) -> None:
        """A piece of the body for the service."""
        repeatable = self.repeatable
        if repeatable is not None and repeatable.add(data):
            if self.connection is None:  # until it is sent once more
                self.request.pause_body()
            else:
                self._forget_body()
        if self.connection is not None:
            self.connection.write(data)
        elif self.held is not None and self.held.add(data):
            self.request.pause_body()
            self._body_held()

    def body_finished(self) -> None:
        connection = self.connection
        if connection is None:
            self._body_held()
            return
        if self.request.is_stream and self.exchange.call is None:
            connection.timeout = self.destination.timeout
        connection.finish(self._trailers())

    def _trailers(self) -> Headers | None:
        trailers = self.request.trailers
        return (
            None if trailers is None else upstream_trailers(trailers, self.destination.copied, self.exchange.withheld)
        )

    def client_failed(self, error: Refused | ClientLost) -> None:
        self.exchange.driver.client_failed(self.exchange, error)

    def _body_held(self) -> None:
        """Enough of it is there, or all."""
        held = self.held
        if held is not None and held.waiting:
            held.waiting = False
            if self.exchange.waiting is held:
                self.exchange.resume(None)

    def _forget_body(self) -> None:
        """What was sent of a call need not be sent again, or is too much to be kept."""
        repeatable, self.repeatable = self.repeatable, None
        if repeatable is not None:
            repeatable.release()

    def _release_body(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            held.release()

    # wire.interfaces.Receiver: who is waited for, and the answer.

    def moved(self) -> int | None:
        request = self.request
        owes_body = not request.body_complete and not self.full
        return request.moved() if owes_body or self.unread else None

    def too_slow(self) -> None:
        error = errors.ClientTimeout("Others wait for a connection to the service, and this request was the slowest.")
        self.exchange.driver.refuse(self.exchange, error)

    def pause_body(self) -> None:
        self.full = True
        self.request.pause_body()

    def resume_body(self) -> None:
        self.full = False
        self.read_on()

    def response_started(self, status: int, reason: bytes, headers: Headers) -> None:
        if status >= 500 and self.sent_elsewhere(status, whole=False):
            return
        self._release_body()
        self._forget_body()
        connection = self.connection
        assert connection is not None
        out = self.head_of(status, headers, connection.version)
        if out is None:
            return
        if status == 101:
            self._start_tunnel(connection, out)
            return
        if connection.event_stream:
            self.event_stream = True
            if status < 500:
                self.target_did(status)
            self.settle(failed=False)  # it may last for hours
        elif self.permit is not None:
            circuit = self.destination.upstream.circuit
            assert circuit is not None
            if circuit.probing:
                self.settle(status in FAILURES)  # how fast its client reads says nothing of the service
        self.request.start(status, out, reason)
        if self.event_stream:
            self._lasts()

    def response_whole(self, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        out = self.head_of_whole(status, headers)
        if out is not None:
            self.request.respond(status, out, body, reason)
            self.exchange.driver.end(self.exchange)

    def response_received(self, data: bytes) -> None:
        self.request.write(data)

    def response_paused(self) -> None:
        self.request.flush()
        self.request.stream.set_producer(self)

    def response_trailers(self, trailers: Headers) -> None:
        self.trailers = client_trailers(trailers, self.exchange.dropped) or None
        if self.exchange.call is not None:
            self.exchange.call.status = status_in(trailers)

    def response_finished(self) -> None:
        self.upstream_ended(self.exchange.status)
        self.request.finish(self.trailers)
        self.exchange.driver.end(self.exchange)

    def response_failed(self, error: UpstreamError) -> None:
        if not self.sent_again(error):
            self.failed(error)

    def head_of(self, status: int, headers: Headers, version: bytes) -> Headers | None:
        """The fields of the service's answer as the client gets them. None where a hook failed, which is answered."""
        exchange = self.exchange
        exchange.status = status
        out = client_headers(headers, status, exchange.id, exchange.added, exchange.dropped, version)
        return hooked(exchange, status, out, own=False) if exchange.route.hooks else out

    def head_of_whole(self, status: int, headers: Headers) -> Headers | None:
        """``head_of`` an answer that has come whole, whose target is told of it. None also where the request is sent
        elsewhere."""
        if self.exchange.call is not None:
            self.exchange.call.status = status_in(headers)
        if status >= 500 and self.sent_elsewhere(status, whole=True):
            return None
        connection = self.upstream_ended(status)
        assert connection is not None
        return self.head_of(status, headers, connection.version)

    def upstream_ended(self, status: int) -> UpstreamConnection | None:
        """The service's answer is complete."""
        connection = self.part()
        self.upstream_ended_at = self.destination.seconds()
        if status < 500 and not self.event_stream:  # else it has been told with the head
            self.target_did(status)
        if self.permit is not None:
            call = self.exchange.call
            self.settle(status in FAILURES or (call is not None and call.status == UNAVAILABLE))
        return connection

    def _start_tunnel(self, connection: UpstreamConnection, out: Headers) -> None:
        destination = self.destination
        self.part()
        self.target_did(101)
        upstream = connection.give_up()
        out += ((b"connection", b"upgrade"), (b"upgrade", b"websocket"))
        client = self.request.start_tunnel(out)
        self.tunnelled = True
        leave(self.exchange)
        self.settle(failed=False)
        tunnel = self._tunnel = join(client, upstream, destination.deadlines, destination.tunnel_idle_timeout)
        tunnel.addBoth(self._tunnel_ended)
        self._lasts()

    def _lasts(self) -> None:
        for each in self.exchange.route.on_lasting:
            each.run(self.exchange)

    def _tunnel_ended(self, _: object) -> None:
        if self._tunnel is not None:  # else somebody has abandoned it, and says why
            self.client_failed(ClientLost())

    # IPushProducer: the client reads slower than the service sends.

    def pauseProducing(self) -> None:
        self.unread = True
        if self.connection is not None:
            self.connection.pause_response()

    def resumeProducing(self) -> None:
        self.unread = False
        if self.connection is not None:
            self.connection.resume_response()

    def stopProducing(self) -> None:
        """The client is gone; ``client_failed`` follows."""

    # The end.

    def abandon(self) -> None:
        connection = self.part()
        if connection is not None:
            connection.abandon()
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.cancel()

    def close(self) -> None:
        self._release_body()
        self._forget_body()
        if self.permit is not None:
            circuit = self.destination.upstream.circuit
            assert circuit is not None
            circuit.cancel(self.permit, self.destination.seconds())


classImplements(Relay, IPushProducer)
