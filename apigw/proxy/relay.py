# Compiled: see docs/decisions/compiled.md
"""The bytes of one exchange, both ways: the request's body to the service, and the service's answer to the client."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import classImplements

from apigw import errors
from apigw.contract.exchange import Exchange, Head, Relaying
from apigw.proxy.destination import Destination
from apigw.proxy.headers import client_headers, upstream_fields, without_segments
from apigw.proxy.held_body import HeldBody
from apigw.upstream.failover import again
from apigw.upstream.target import Target
from apigw.wire.errors import ClientLost, Refused, UpstreamError, UpstreamLost, UpstreamTimedOut
from apigw.wire.headers import Headers
from apigw.wire.interfaces import Message, UpstreamConnection
from apigw.wire.request import Request
from apigw.wire.tunnel import join

FAILURES = frozenset({500, 502, 503, 504})
"""Answers of a service that say that it, and not the request, is at fault."""

log = Logger(namespace=__name__)


class Relay(Relaying):
    """Listens to the client, receives from the service, and lets neither send faster than the other takes."""

    def __init__(self, exchange: Exchange, destination: Destination) -> None:
        self.exchange = exchange
        self.request: Request = exchange.request
        self.destination = destination
        self.target: Target | None = None
        self.connection: UpstreamConnection | None = None
        self.held: HeldBody | None = None
        """What of the body came before there was a connection."""
        self.permit: int | None = None
        """The circuit's leave, until the circuit has been told how it went."""
        self.wanted: Target | None = None
        """The target to which the request is sent again."""
        self.sent_at = 0.0
        self.upstream_ended_at = 0.0
        self.event_stream = False
        self.tunnelled = False
        self.behind = False
        """Whether the service takes the request's body slower than it comes, so that some of it is still here."""
        self.unread = False
        """Whether the client takes the answer slower than it comes."""
        exchange.relay = self
        self.request.listener = self

    # The request.

    def whole(self) -> bool:
        """Whether the request could be sent again: it has no body, or one that is kept and complete."""
        request = self.request
        return request.content_length == 0 or (self.held is not None and request.body_complete)

    def send(self, target: Target, connection: UpstreamConnection) -> None:
        """Send the request over a connection to ``target``. What comes back is relayed from then on."""
        self.target, self.connection = target, connection
        exchange, request, destination = self.exchange, self.request, self.destination
        host = request.authority if destination.preserve_host and request.authority else target.authority
        uri = request.uri if not destination.strip else without_segments(request, destination.strip)
        own = () if exchange.principal is None else exchange.principal.fields
        peers = exchange.peers
        trusted = peers.some and peers.trusts(request.stream.peer)
        fields = upstream_fields(request, trusted, exchange.id, own, destination.copied)
        length, upgrade = request.content_length, request.upgrade
        self.sent_at = destination.seconds()
        connection.send(Message(request.method, uri, host, fields, length, upgrade, destination.timeout), self)
        held = self.held
        if held is None:
            if request.body_complete and not request.bytes_received:
                connection.finish()
            else:
                connection.flush()
                request.read_body()
            return
        connection.write(held.read())
        if request.body_complete:
            connection.finish()
        else:
            self._release_body()
            request.resume_body()

    def hold_body(self, held: HeldBody) -> bool:
        """Read the body until ``held`` has enough. Returns whether that must be waited for."""
        self.held = held
        self.request.read_body()
        return held.waiting and not self.exchange.ended

    # wire.request.Listener: the client's body, and its end.

    def body_received(self, data: bytes) -> None:
        limit = self.destination.max_body_size
        if limit is not None and self.request.bytes_received > limit:
            self.exchange.driver.refuse(self.exchange, errors.BodyTooLarge(f"The body may have up to {limit} bytes."))
        elif self.connection is not None:
            self.connection.write(data)
        elif self.held is not None and self.held.add(data):
            self.request.pause_body()
            self._body_held()

    def body_finished(self) -> None:
        if self.connection is not None:
            self.connection.finish()
        else:
            self._body_held()

    def client_failed(self, error: Refused | ClientLost) -> None:
        self.exchange.driver.client_failed(self.exchange, error)

    def _body_held(self) -> None:
        """Enough of it is there, or all."""
        held = self.held
        if held is not None and held.waiting:
            held.waiting = False
            if self.exchange.waiting is held:
                self.exchange.resume(None)

    def _release_body(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            held.release()

    # wire.interfaces.Receiver: who is waited for, and the answer.

    def moved(self) -> int | None:
        request = self.request
        owes_body = not request.body_complete and not self.behind
        return request.moved() if owes_body or self.unread else None

    def too_slow(self) -> None:
        error = errors.ClientTimeout("Others wait for a connection to the service, and this request was the slowest.")
        self.exchange.driver.refuse(self.exchange, error)

    def pause_body(self) -> None:
        self.behind = True
        self.request.pause_body()

    def resume_body(self) -> None:
        self.behind = False
        self.request.resume_body()

    def response_started(self, status: int, reason: bytes, headers: Headers) -> None:
        self._release_body()
        exchange, request, connection = self.exchange, self.request, self.connection
        assert connection is not None
        exchange.status = status
        out = client_headers(headers, status, exchange.id, exchange.added, exchange.dropped)
        if exchange.route.hooks:
            out = hooked(exchange, status, out, own=False)
        if status == 101:
            self._start_tunnel(connection, out)
            return
        if connection.event_stream:
            self.event_stream = True
            self._settle(failed=False)  # it may last for hours
        elif self.permit is not None:
            circuit = self.destination.upstream.circuit
            assert circuit is not None
            if circuit.probing:
                self._settle(status in FAILURES)  # how fast its client reads says nothing of the service
        request.start(status, out, reason)

    def response_whole(self, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        exchange = self.exchange
        self._part()
        self.upstream_ended_at = self.destination.seconds()
        if self.permit is not None:
            self._settle(status in FAILURES)
        exchange.status = status
        out = client_headers(headers, status, exchange.id, exchange.added, exchange.dropped)
        if exchange.route.hooks:
            out = hooked(exchange, status, out, own=False)
        self.request.respond(status, out, body, reason)
        exchange.driver.end(exchange)

    def response_received(self, data: bytes) -> None:
        self.request.write(data)

    def response_paused(self) -> None:
        self.request.flush()
        self.request.stream.set_producer(self)

    def response_finished(self) -> None:
        self._part()
        self.upstream_ended_at = self.destination.seconds()
        if self.permit is not None:
            self._settle(self.exchange.status in FAILURES)
        self.request.finish()
        self.exchange.driver.end(self.exchange)

    def response_failed(self, error: UpstreamError) -> None:
        connection, target = self._part(), self.target
        destination, exchange = self.destination, self.exchange
        assert connection is not None
        assert target is not None
        upstream = destination.upstream
        upstream.series.error(_KINDS.get(type(error), "protocol"))
        method, whole, repeated = self.request.method, self.whole(), self.wanted is not None
        other = again(upstream, target, error, method, whole, repeated, connection.used)
        if other is not None:
            self.wanted = other
            exchange.at = len(exchange.route.stages) - 1  # ``forward.Connect``
            exchange.resume(None)
            return
        if not isinstance(error, UpstreamLost) or (self.request.body_complete and not self.behind):
            self.settle_failure()
        # Else it had not got all of the request: it may have been tired of waiting for the client, or refused the body.
        if isinstance(error, UpstreamTimedOut):
            exchange.driver.refuse(exchange, errors.UpstreamTimeout("The service did not answer in time."))
        else:
            if destination.log_decisions:
                log.debug("{id}: {target}: {error}", id=exchange.id.decode("ascii"), target=target.name, error=error)
            exchange.driver.refuse(exchange, errors.UpstreamProtocolError("The service gave no valid answer."))

    def _part(self) -> UpstreamConnection | None:
        """The exchange with the target is over."""
        connection, self.connection = self.connection, None
        if connection is not None and self.destination.upstream.counts:
            assert self.target is not None
            self.destination.upstream.end(self.target)
        return connection

    def _start_tunnel(self, connection: UpstreamConnection, out: Headers) -> None:
        destination = self.destination
        self._part()
        upstream = connection.give_up()
        out += ((b"connection", b"upgrade"), (b"upgrade", b"websocket"))
        client = self.request.start_tunnel(out)
        self.tunnelled = True
        self._settle(failed=False)
        join(client, upstream, destination.deadlines, destination.tunnel_idle_timeout).addCallback(self._tunnel_ended)

    def _tunnel_ended(self, _: object) -> None:
        self.exchange.driver.end(self.exchange)

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
        connection = self._part()
        if connection is not None:
            connection.abandon()

    def close(self) -> None:
        self._release_body()
        if self.permit is not None:
            circuit = self.destination.upstream.circuit
            assert circuit is not None
            circuit.cancel(self.permit, self.destination.seconds())

    def settle_failure(self) -> None:
        """The service is at fault."""
        self._settle(failed=True)

    def _settle(self, failed: bool) -> None:
        """Tell the circuit how the service did. Exchanges that end otherwise say nothing of it."""
        permit, self.permit = self.permit, None
        if permit is not None:
            circuit = self.destination.upstream.circuit
            assert circuit is not None
            (circuit.failure if failed else circuit.success)(permit, self.destination.seconds())


classImplements(Relay, IPushProducer)


def hooked(exchange: Exchange, status: int, headers: Headers, own: bool) -> Headers:
    """The fields of an answer when the route's hooks have seen it."""
    head = Head(status, headers, own)
    for hook in exchange.route.hooks:
        hook.run(exchange, head)
    return head.headers


_KINDS: dict[type[UpstreamError], str] = {UpstreamTimedOut: "timeout", UpstreamLost: "lost"}
