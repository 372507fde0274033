# Compiled: see docs/decisions/compiled.md
"""HTTP/1.1 server: one connection, on which requests are answered in order (RFC 9112).

This file finds where each message begins and ends, and decides when the connection is closed. ``states`` has the
transitions, ``head`` parses complete heads, ``body`` separates bodies, ``answer`` writes. Bytes behind a message are
not parsed before it is answered.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw.wire.deadlines import NEVER
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.http1.body import RequestBody
from apigw.wire.http1.connection import ClientConnection
from apigw.wire.http1.head import check_beginning
from apigw.wire.http1.lines import END_OF_HEAD, cut
from apigw.wire.http1.states import BODY, CLOSING, DONE, ENDED, EXPECT, HEAD, IDLE, LINGER, PAUSED, REST, TUNNEL, TURN
from apigw.wire.reactor.layers import unsent
from apigw.wire.request import Request
from apigw.wire.server import Server
from apigw.wire.target import check_served
from apigw.wire.tunnel import End

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
MOST_OF_TURN: Final = 16
"""Requests that one connection may begin in a turn of the reactor, so that others are served too."""
UNTOLD_FOR: Final = 1.0
"""Seconds that a client has, while the server drains, to send a request whose answer tells it that it is the last."""


class HTTP1Channel(ClientConnection):
    """One connection. Requests on it are answered in order, one at a time."""

    version = "HTTP/1.1"

    def __init__(self, factory: Server, peer: bytes, secure: bool) -> None:
        super().__init__(factory, peer, secure)
        self._room = factory.room
        self._request: Request | None = None
        self._last = False  # the connection is closed after this answer
        self._pending = b""  # the beginning of a head, or pipelined requests
        self._searched = 0  # bytes of it that do not contain the end of a head
        self._blank_skipped = False
        self._body: RequestBody | None = None
        self._producer: IPushProducer | None = None
        self._taking = False  # the loop of ``_take`` runs

    # From the transport.

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = self._answer.transport = transport
        transport.registerProducer(self, True)  # type: ignore[attr-defined]  # every TCP transport has it
        self._enter(IDLE)
        self.factory.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over()
        self.factory.closed(self)
        request, self._request = self._request, None
        if request is not None:
            request.client_failed(ClientLost())

    def dataReceived(self, data: bytes) -> None:
        state = self._state
        if state >= TUNNEL:
            return
        if self._pending:
            data = self._pending + data
            self._pending = b""
        if state == TURN:
            self._pending = data
        else:
            self._take(data)

    def readConnectionLost(self) -> None:
        """The client has closed its side. The connection is closed too, unless an answer is left to send."""
        request = self._request
        if self._state == DONE and request is not None and not request.upgrade:
            self._last = True
            self._enter(ENDED)
        elif request is None and self._state < CLOSING and self._state != TUNNEL and unsent(self.transport):
            self._close()
        else:
            self.transport.connectionLost(connectionDone)

    # Back-pressure: the transport's buffer to the client is full, or has room again.

    def pauseProducing(self) -> None:
        self._full = True
        self._room.busy(self)
        self._unsent = unsent(self.transport)
        self._enter(self._state)
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._full = False
        state = self._state
        if state == LINGER:
            self._half_close()
        elif state == IDLE:
            self._next()
        else:
            self._enter(state)
            if state == HEAD:
                self._take_pending()
            elif self._producer is not None:
                self._producer.resumeProducing()

    def deadline_passed(self) -> None:
        state = self._state
        if self._full or state == CLOSING:
            self._reader_is_late()
        elif state == HEAD and self._pending:
            late = Refused(408, "The request's headers took too long.")
            late.began_with = self._pending
            self.refuse(late)
        elif state in (BODY, PAUSED) and self._request is not None and not self._request.started:
            self.refuse(Refused(408, "The request's body took too long."))
        elif state in (IDLE, HEAD):
            self._close_idle()
        elif state == REST:
            self._close()
        else:
            self.cut()

    # Reading from the client.

    def _take(self, data: bytes) -> None:
        """Parse what has arrived, up to the end of the request in progress."""
        begun = 0  # requests, in this turn of the reactor
        self._taking = True
        try:
            while data:
                state = self._state
                if state in (IDLE, HEAD):
                    if self._full:
                        # The client first has to read the answers to its earlier requests.
                        break
                    if begun == MOST_OF_TURN:
                        self._enter(TURN)
                        self._room.busy(self)
                        self.factory.deadlines.clock.callLater(0, self._take_turn)
                        break
                    begun += 1
                    data = self._take_head(data)
                elif state in (BODY, PAUSED, EXPECT, REST):
                    data = self._take_body(data)
                elif state < TUNNEL:
                    # A pipelined request: it begins after the answer in progress.
                    break
                else:
                    return
        except Refused as refusal:
            refusal.began_with = data
            self.refuse(refusal)
            return
        finally:
            self._taking = False
        if data:
            # Kept in one buffer. Reading is paused, so it cannot grow.
            self._pending = data
            self._pause_reading()
        elif self._reading_paused:
            self._resume_reading()

    def _take_pending(self) -> None:
        data, self._pending = self._pending, b""
        self._take(data)

    def _take_turn(self) -> None:
        """Go on, in a later turn of the reactor."""
        if self._state == TURN:
            self._enter(IDLE)
            self._turn = None
            self._take_pending()

    def _take_head(self, data: bytes) -> bytes:
        """Parse one head off the front of ``data`` and start its exchange. Returns the rest."""
        settings = self.factory.settings
        if data.startswith(b"\r\n") and not self._blank_skipped:
            # RFC 9112 §2.2: one empty line before a request is ignored.
            self._blank_skipped = True
            data = data[2:]
        head, end, rest = cut(data, self._searched)
        if not end or len(head) > settings.max_header_size:
            self._await_head(data, settings.max_header_size)
            return b""
        self._blank_skipped = False
        self._searched = 0
        heads = self.factory.heads
        request = heads.read(self, head, settings.max_header_count, settings.kept_oddities)
        if self.hosts is not None:
            check_served(self.hosts, request.authority)
        self._last = heads.closing
        length = request.content_length
        if length and length <= len(rest):
            request.body_came_whole(rest[:length])
            rest = rest[length:]
        self._pending = rest
        self._request = request
        self.place.leave()
        if request.body_complete:
            # As ``_enter`` does: a client whose request is complete has nothing to do.
            self._state = DONE
            self.deadline = NEVER
        else:
            self._body = RequestBody(length, settings)
            self._begin_body()
            self._enter(EXPECT if heads.expects_continue else BODY)
        self.factory.on_request(request)
        rest, self._pending = self._pending, b""
        return rest

    def _await_head(self, data: bytes, most: int) -> None:
        """Keep the beginning of a head. Raises ``Refused`` if it cannot become a valid one."""
        check_beginning(data, self._searched, most)
        if self._state != HEAD:
            self._enter(HEAD)
        self._room.unfinished(self)
        self._pending = data
        self._searched = len(data)

    def _take_body(self, data: bytes) -> bytes:
        """Pass on what belongs to this request's body. Returns the rest."""
        body = self._body
        assert body is not None
        request = self._request
        piece, rest = body.take(data)
        if body.complete:
            if request is not None:
                self._enter(DONE)
        elif piece:
            if self._state != PAUSED:
                self._enter(REST if request is None else BODY)
            if body.is_slow(len(piece), self._seconds()):
                if request is not None:
                    raise Refused(408, "The request's body came too slowly.")
                self._close()
                return b""
        elif self._state == EXPECT:
            self._enter(BODY)
        self._pending = rest
        if request is not None:
            if piece:
                request.body_received(piece)
            if body.complete and request is self._request:
                request.trailers = body.trailers()
                request.body_finished()
        elif body.complete:
            self._next()
        rest, self._pending = self._pending, b""
        return rest

    # wire.request.Stream: what the exchange does with the body.

    def want_body(self, request: Request) -> None:
        expected = self._state == EXPECT
        if expected or self._state == BODY:
            self._await_body(request)
        if expected and not request.started:
            self.transport.write(CONTINUE)

    def pause_body(self) -> None:
        if self._state == BODY or self._state == EXPECT:
            self._enter(PAUSED)
            assert self._body is not None
            self._body.pause(self._seconds())
            self._pause_reading()

    def resume_body(self) -> None:
        if self._state == PAUSED:
            assert self._body is not None
            assert self._request is not None
            self._await_body(self._request)
            self._body.resume(self._seconds())
            self._resume_reading()

    # wire.request.Stream: the response.

    def start_response(self, request: Request, status: int, reason: bytes, headers: Headers) -> None:
        if self._answer.begin(request, status, reason, headers) or not self._may_follow():
            self._last = True
        self._answer.end_head(self._last)

    def respond(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        factory = self.factory
        if self._state != DONE or self._last or self._full or factory.draining:
            self.start_response(request, status, reason, headers)
            self.send(body)
            self.end_response(request)
            return
        # The usual case: a complete answer, after which the connection is kept.
        self._request = self._producer = None
        self._state = IDLE
        self.deadline = self._seconds() + factory.settings.keepalive_timeout
        self._room.kept.add(self.place)
        self._answer.whole(request, status, reason, headers, body)
        if self._pending and not self._taking and self._state == IDLE:
            self._take_pending()

    def _may_follow(self) -> bool:
        """Whether another request may follow the one that is being answered."""
        state = self._state
        if state in (BODY, PAUSED):
            assert self._body is not None
            return self._body.may_be_dropped()
        return state != EXPECT and (not self.factory.draining or self._pending.find(END_OF_HEAD) >= 0)

    def send(self, data: bytes) -> None:
        self._answer.send(data)

    def flush(self) -> None:
        self._answer.flush()
        self._answer_moved(self._request)

    def end_response(self, request: Request, trailers: Headers | None = None) -> None:
        self._answer.end(trailers if request.wants_trailers else None)
        self._producer = None
        self._request = None
        state = self._state
        if self._last:
            nothing_comes = request.body_complete and not self._pending and not self._reading_paused
            if nothing_comes or state == ENDED:
                self._close()
            else:
                self._linger()
        elif state in (BODY, PAUSED):
            self._enter(REST)
            self._resume_reading()
        else:
            self._next()

    def abort(self, code: int = 2) -> None:
        self._request = self._producer = None
        self.cut()

    def set_producer(self, producer: IPushProducer | None) -> None:
        self._producer = producer
        if producer is not None and self._full:
            producer.pauseProducing()

    def start_tunnel(self, request: Request, headers: Headers) -> End:
        self._answer.switch_protocols(headers)
        self.transport.unregisterProducer()
        self._request = None
        self._full = False
        self._enter(TUNNEL)
        early, self._pending = self._pending, b""
        self._resume_reading()
        return End(self.transport, early, self._close)

    # Between requests, and closing.

    def drain(self) -> None:
        """Close after the exchange in flight, if any, and after the pipelined ones behind it."""
        if (self._state == IDLE or self._state == HEAD) and not self._pending:
            self._close_idle()
            if self._state == IDLE or self._state == HEAD:
                self.factory.deadlines.clock.callLater(0, self.drain)

    def _next(self) -> None:
        """Begin the next request, which may have arrived already."""
        self._enter(IDLE)
        if self._full:
            return
        self._room.idle(self)
        if not self._taking:
            self._take_pending()
        if self.factory.draining and self._state == IDLE:
            # The answer began before the drain, and could not say that it is the last: the client may be about to ask.
            self.deadline = self._seconds() + UNTOLD_FOR

    def refuse(self, refusal: Refused) -> None:
        """Answer a malformed request, and close."""
        request = self._request
        self._pending = b""
        self._last = True
        if request is not None:
            self._enter(DONE)
            request.client_failed(refusal)
            return
        self._room.unfinished(self)
        status, headers, body = self.factory.refuse(refusal, self.peer, self.secure, b"HTTP/1.1")
        self._answer.refuse(status, headers, body)
        self._linger()


classImplements(HTTP1Channel, IPushProducer, IHalfCloseableProtocol)
