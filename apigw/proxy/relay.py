# Compiled: see docs/decisions/compiled.md
"""The bytes of one exchange, both ways: the request's body to the service, and the service's answer to the client."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import classImplements

from apigw import errors
from apigw.contract.exchange import Exchange, Head, Relaying
from apigw.proxy.destination import Destination
from apigw.proxy.headers import client_headers, upstream_head, without_segments
from apigw.proxy.held_body import HeldBody
from apigw.proxy.refusals import refused
from apigw.upstream.upstream import Target
from apigw.wire.errors import ClientLost, Refused, UpstreamError, UpstreamLost, UpstreamTimedOut
from apigw.wire.headers import Headers
from apigw.wire.http1.client import UpstreamConnection
from apigw.wire.request import Request
from apigw.wire.tunnel import join

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH"})
"""RFC 9110 §9.2.2, and its registry."""
CLIENT_LEFT = 499
"""The status, in logs and metrics, of an exchange whose client left."""
FAILURES = frozenset({500, 502, 503, 504})
"""Answers of a service that say that it, and not the request, is at fault."""

log = Logger(namespace=__name__)


class Relay(Relaying):
    """Listens to the client, receives from the service, and lets neither send faster than the other takes."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.request: Request = exchange.request
        self.destination: Destination | None = None
        """Where the request goes, from the moment that it is about to."""
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
        self.request.listener = self

    # The request.

    def whole(self) -> bool:
        """Whether the request could be sent again: it has no body, or one that is kept and complete."""
        request = self.request
        return request.content_length == 0 or (self.held is not None and request.body_complete)

    def send(self) -> None:
        """Send the request over the connection that was taken."""
        exchange, request = self.exchange, self.request
        destination, target, connection = self.destination, self.target, self.connection
        assert destination is not None
        assert target is not None
        assert connection is not None
        host = request.authority if destination.preserve_host and request.authority else target.authority
        uri = request.uri if not destination.strip else without_segments(request, destination.strip)
        own = () if exchange.principal is None else (exchange.principal.lines,)
        trusted = exchange.peers.trusts(request.stream.peer)
        head = upstream_head(request, uri, host, trusted, exchange.id, own, destination.copied)
        self.sent_at = destination.seconds()
        connection.send(
            head, self, destination.timeout, request.method == b"HEAD", request.upgrade, request.content_length is None
        )
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
        assert self.destination is not None
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
        if isinstance(error, Refused):
            self.exchange.driver.refuse(self.exchange, refused(error))
            return
        self.abandon()
        if not self.tunnelled:
            self.exchange.status = CLIENT_LEFT
        self.exchange.driver.end(self.exchange)

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

    # wire.http1.client.Receiver: the answer.

    def pause_body(self) -> None:
        self.request.pause_body()

    def resume_body(self) -> None:
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
            self._settle(failed=False)  # which otherwise would hold its place in a half-open circuit for ever
        request.start(status, out, reason)

    def response_received(self, data: bytes) -> None:
        self.request.write(data)

    def response_paused(self) -> None:
        self.request.flush()
        self.request.stream.set_producer(self)

    def response_finished(self) -> None:
        self.connection = None
        assert self.destination is not None
        self.upstream_ended_at = self.destination.seconds()
        if self.permit is not None:
            self._settle(self.exchange.status in FAILURES)
        self.request.finish()
        self.exchange.driver.end(self.exchange)

    def response_failed(self, error: UpstreamError) -> None:
        connection, self.connection = self.connection, None
        destination, target, exchange, request = self.destination, self.target, self.exchange, self.request
        assert destination is not None
        assert target is not None
        upstream = destination.upstream
        upstream.series.error(_KINDS.get(type(error), "protocol"))
        if (
            isinstance(error, UpstreamLost)
            and error.silent
            and connection is not None
            and self.wanted is None
            and (request.method in IDEMPOTENT or error.unsent)
            and self.whole()
        ):
            # The service had probably closed the connection for being idle (RFC 9110 §9.2.2). A new one that dies like
            # this was taken by a process that is being killed: then only another target can help.
            other = upstream.another(target)
            if connection.used or other is not target:
                self.wanted = other
                exchange.at = len(exchange.route.stages) - 2  # ``forward.Connect`` and ``forward.Send``
                exchange.resume(None)
                return
        self.settle_failure()
        if isinstance(error, UpstreamTimedOut):
            exchange.driver.refuse(exchange, errors.UpstreamTimeout("The service did not answer in time."))
        else:
            if destination.log_decisions:
                log.debug("{id}: {target}: {error}", id=exchange.id.decode("ascii"), target=target.name, error=error)
            exchange.driver.refuse(exchange, errors.UpstreamProtocolError("The service gave no valid answer."))

    def _start_tunnel(self, connection: UpstreamConnection, out: Headers) -> None:
        destination = self.destination
        assert destination is not None
        upstream = connection.give_up()
        out += ((b"connection", b"upgrade"), (b"upgrade", b"websocket"))
        client = self.request.start_tunnel(out)
        self.connection = None
        self.tunnelled = True
        self._settle(failed=False)
        join(client, upstream, destination.deadlines, destination.tunnel_idle_timeout).addCallback(self._tunnel_ended)

    def _tunnel_ended(self, _: object) -> None:
        self.exchange.driver.end(self.exchange)

    # IPushProducer: the client reads slower than the service sends.

    def pauseProducing(self) -> None:
        if self.connection is not None:
            self.connection.pause_response()

    def resumeProducing(self) -> None:
        if self.connection is not None:
            self.connection.resume_response()

    def stopProducing(self) -> None:
        """The client is gone; ``client_failed`` follows."""

    # The end.

    def abandon(self) -> None:
        """Stop waiting, and let go of the service."""
        exchange = self.exchange
        waiting, exchange.waiting = exchange.waiting, None
        if waiting is not None:
            waiting.cancel()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()

    def close(self) -> None:
        """The exchange is over: give back what it still holds."""
        self.request.listener = None
        self._release_body()
        if self.permit is not None:
            assert self.destination is not None
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
            assert self.destination is not None
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
