# Compiled: see docs/decisions/compiled.md
"""HTTP/1.1 towards clients: one connection, on which requests are answered in order (RFC 9112).

This file decides where each message begins and ends, and when the connection does: ``h1_head`` reads a head that is
whole, ``h1_body`` takes the chunked coding apart. What follows a message is never looked at before it is answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw.wire.deadlines import NEVER
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import NO_LINE, Headers
from apigw.wire.http1.chunked import ChunkedBody
from apigw.wire.http1.head import HeadReader
from apigw.wire.pace import Pace
from apigw.wire.reactor.transport import unsent
from apigw.wire.request import BODYLESS_STATUS, Request, reason_of
from apigw.wire.tunnel import End

if TYPE_CHECKING:
    from apigw.wire.channel import ChannelFactory

END_OF_HEAD = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
DISCARDED_BODY = 64 * 1024
"""How much of a body that nobody reads is worth reading to keep the connection; beyond it, closing is cheaper."""
LINGER = 5.0
"""Seconds in which a client that still sends may read the answer before the connection is reset (RFC 9112 §9.6)."""
COALESCE = 16 * 1024
"""Pieces up to this size are joined into one write."""


class HTTP1Channel:
    """One connection. Requests on it are answered in order, one at a time."""

    transport: Any
    deadline: float

    version = "HTTP/1.1"

    def __init__(self, factory: ChannelFactory, peer: bytes, secure: bool) -> None:
        self.factory = factory
        self.peer = peer
        self.secure = secure
        self.deadline = NEVER
        self._seconds = factory.deadlines.seconds
        self._room = factory.room
        self._head = HeadReader()
        self._pending = b""  # the beginning of a head, or requests that came before their turn
        self._head_begun = False
        self._searched = 0  # how much of it cannot hold the end
        self._blank_skipped = False
        self._busy = False
        self._request: Request | None = None
        self._reading_body = False
        self._remaining: int | None = None  # of a body with a Content-Length
        self._chunks: ChunkedBody | None = None
        self._body_paused = False
        self._pace: Pace | None = None  # of a body with a Content-Length, from its first piece on
        self._closing = False
        self._over = False  # nothing more is read from this client
        self._lingering = False
        self._chunked = False
        self._bodyless = False
        self._out: list[bytes] = []
        self._producer: IPushProducer | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._unsent = 0
        self._lost = False

    # From the transport.

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        transport.registerProducer(self, True)  # type: ignore[attr-defined]
        self.deadline = self._seconds() + self.factory.settings.keepalive_timeout
        self.factory.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = self._lost = True
        self.factory.closed(self)
        request, self._request = self._request, None
        if request is not None:
            request.client_failed(ClientLost())

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        if self._pending:
            data = self._pending + data
            self._pending = b""
        self._busy = True
        try:
            while data and not self._over:
                if self._reading_body:
                    data = self._read_body(data)
                elif self._request is not None or self._writing_paused:
                    # Pipelined. It waits in one buffer, and the client with it.
                    self._pending = data
                    self._pause_reading()
                    return
                else:
                    data = self._read_head(data)
        except Refused as refusal:
            self._refuse(refusal)
        finally:
            self._busy = False

    # The transport's buffer to the client fills and drains.

    def pauseProducing(self) -> None:
        self._writing_paused = True
        self._room.busy(self)
        self._unsent = unsent(self.transport)
        self.deadline = self._seconds() + self.factory.settings.client_body_timeout
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._writing_paused = False
        if self._lingering:
            self._half_close()
        elif self._request is not None:
            self.deadline = NEVER
            if self._reading_body and not self._body_paused:
                self._await_body()
            if self._producer is not None:
                self._producer.resumeProducing()
        elif not self._over and not self._reading_body:
            self._next()

    def stopProducing(self) -> None:
        """The transport is lost; ``connectionLost`` follows."""

    def deadline_passed(self) -> None:
        request = self._request
        if self._over or self._writing_paused:
            self._reader_is_late()
        elif request is None:
            if self._pending:
                self._refuse(Refused(408, "The request's headers took too long."))
            else:
                self._close()
        elif self._reading_body and not request.started:
            self._refuse(Refused(408, "The request's body took too long."))
        else:
            self._cut()

    def _reader_is_late(self) -> None:
        """The client may be slow. It has stalled when it took nothing for a whole ``client_body_timeout``."""
        left = unsent(self.transport)
        if 0 < left < self._unsent:
            self._unsent = left
            self.deadline = self._seconds() + self.factory.settings.client_body_timeout
        else:
            self._cut()

    # A head.

    def _read_head(self, data: bytes) -> bytes:
        """Parse one head off the front of ``data`` and start its exchange. Returns the rest."""
        settings = self.factory.settings
        if data.startswith(b"\r\n") and not self._blank_skipped:
            # RFC 9112 §2.2: one empty line before a request is forgiven.
            self._blank_skipped = True
            data = data[2:]
        end = data.find(END_OF_HEAD, max(0, self._searched - 3))
        if end < 0 or end > settings.max_header_size:
            self._wait_for_head(data, settings.max_header_size)
            return b""
        self._head_begun = self._blank_skipped = False
        self._searched = 0
        end += 4
        head = self._head
        request = head.read(self, data if end == len(data) else data[:end], settings.max_header_count)
        self._closing = head.closing
        self._pending = data[end:]
        self._start(request)
        rest, self._pending = self._pending, b""
        return rest

    def _wait_for_head(self, data: bytes, most: int) -> None:
        """Keep the beginning of a head. Raises ``Refused`` for what cannot become one, so that nobody waits for it."""
        if NO_LINE(data, max(0, self._searched - 1), most + 4):
            raise Refused(400, "The request holds a control character, or CR or LF without the other.")
        if len(data) > most + 3:
            if b"\r\n" in data[:most]:
                raise Refused(431, "The request's headers are too large.")
            raise Refused(414, "The request target is too long.")
        if not self._head_begun:
            self._head_begun = True
            self.deadline = self._seconds() + self.factory.settings.client_header_timeout
        self._room.unfinished(self)
        self._pending = data
        self._searched = len(data)

    def _start(self, request: Request) -> None:
        self._request = request
        self._bodyless = False
        self._room.busy(self)
        self.deadline = NEVER
        if request.body_complete:
            self._reading_body = False
        else:
            self._reading_body = True
            self._body_paused = False
            self._remaining = request.content_length
            self._chunks = None
            self._pace = None
            if self._remaining is None:
                self._chunks = ChunkedBody(self.factory.settings.max_header_size)
            if not self._head.expects_continue:
                self._await_body()
        self.factory.on_request(request)

    # A body.

    def _read_body(self, data: bytes) -> bytes:
        """Hand on what belongs to this request's body. Returns the rest."""
        rest = b""
        if self._chunks is not None:
            data, rest = self._chunks.feed(data)
            complete = self._chunks.complete
        else:
            assert self._remaining is not None
            if len(data) > self._remaining:
                data, rest = data[: self._remaining], data[self._remaining :]
            self._remaining -= len(data)
            complete = not self._remaining
        if complete:
            self._reading_body = self._body_paused = False
            self._rest()
            self._resume_reading()
        elif data:
            self._await_body()
            if self._is_slow(len(data)):
                if self._request is not None:
                    raise Refused(408, "The request's body came too slowly.")
                self._close()
        self._pending = rest
        request = self._request
        if request is not None:
            if data:
                request.body_received(data)
            if complete and request is self._request:
                request.body_finished()
        elif complete:
            self._next()
        rest, self._pending = self._pending, b""
        return rest

    def _is_slow(self, size: int) -> bool:
        least = self.factory.settings.client_least_rate
        if least is None or self._remaining is None:
            return False
        now = self._seconds()
        if self._pace is None:
            self._pace = Pace(least, now)
        return self._pace.is_slow(size, now)

    def _await_body(self) -> None:
        self.deadline = self._seconds() + self.factory.settings.client_body_timeout

    def _rest(self) -> None:
        """Nothing is expected of the client, unless it is to read."""
        if self._writing_paused:
            self._await_body()
        else:
            self.deadline = NEVER

    # wire.request.Stream: what the exchange does with the body.

    def want_body(self, request: Request) -> None:
        if self._head.expects_continue:
            self._head.expects_continue = False
            self._await_body()
            if request.bytes_received == 0 and not request.started:
                self.transport.write(CONTINUE)

    def pause_body(self) -> None:
        if self._reading_body and not self._body_paused:
            self._body_paused = True
            if self._pace is not None:
                self._pace.pause(self._seconds())
            self._rest()
            self._pause_reading()

    def resume_body(self) -> None:
        if self._body_paused:
            self._body_paused = False
            if self._pace is not None:
                self._pace.resume(self._seconds())
            self._await_body()
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        if self._reading_paused and not self._body_paused and not self._lost:
            self._reading_paused = False
            self.transport.resumeProducing()

    # wire.request.Stream: the response.

    def start_response(self, request: Request, status: int, reason: bytes, headers: Headers) -> None:
        self._chunked = self._bodyless = False
        if self._reading_body and not self._can_discard(request):
            self._closing = True
        framed = False
        out = self._out
        out.append(b"HTTP/1.1 %d %b\r\n" % (status, reason))
        for name, value in headers:
            if name == b"content-length":
                framed = True
            # Compiled, four of these take half as long as one tuple of them.
            out.append(name)
            out.append(b": ")
            out.append(value)
            out.append(b"\r\n")
        if request.method == b"HEAD" or status in BODYLESS_STATUS:
            self._bodyless = True
        elif not framed:
            if request.clientproto == b"HTTP/1.1":
                self._chunked = True
                out.append(b"transfer-encoding: chunked\r\n")
            else:
                self._closing = True
        if self._closing or (self.factory.draining and END_OF_HEAD not in self._pending):
            self._closing = True
            out.append(b"connection: close\r\n")
        out.append(b"\r\n")

    def send(self, data: bytes) -> None:
        if self._bodyless or not data:
            return
        if self._chunked:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        elif len(data) > COALESCE:
            self.flush()
            self.transport.write(data)
        else:
            self._out.append(data)

    def flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            self.transport.write(b"".join(out))

    def end_response(self, request: Request) -> None:
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.flush()
        self._producer = None
        self._request = None
        if self._closing:
            if request.body_complete and not self._pending and not self._reading_paused:
                self._close()
            else:
                self._linger()
        elif self._reading_body:
            self._await_body()
            self._body_paused = False
            self._resume_reading()
        else:
            self._next()

    def abort(self) -> None:
        self._request = None
        self._out.clear()
        self._cut()

    def set_producer(self, producer: IPushProducer | None) -> None:
        self._producer = producer
        if producer is not None and self._writing_paused:
            producer.pauseProducing()

    def start_tunnel(self, request: Request, headers: Headers) -> End:
        out = [b"HTTP/1.1 101 Switching Protocols\r\n"]
        for name, value in headers:
            out += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*out, b"\r\n")))
        self.transport.unregisterProducer()
        self._request = None
        self._over = True
        self.deadline = NEVER
        early, self._pending = self._pending, b""
        self._resume_reading()
        return End(self.transport, early, self._close)

    # Between requests, and the end.

    def drain(self) -> None:
        """Close when the exchange in flight, if any, is over, and so are those that wait behind it."""
        if self._request is None and not self._reading_body and not self._pending and not self._over:
            self._close()

    def cut(self) -> None:
        """Close now, whatever is in flight."""
        self._cut()

    def _next(self) -> None:
        """The connection is free for the next request, which may have arrived already."""
        if self._writing_paused:
            # Not before the client has read what it asked for.
            self._await_body()
            return
        if self.factory.draining and not self._pending:
            self._close()
            return
        self._room.idle(self)
        self.deadline = self._seconds() + self.factory.settings.keepalive_timeout
        self._resume_reading()
        if self._pending and not self._busy:
            self.dataReceived(b"")

    def _can_discard(self, request: Request) -> bool:
        """Whether reading the rest of this body costs less than a new connection would."""
        return self._remaining is not None and self._remaining <= DISCARDED_BODY and not self._head.expects_continue

    def _refuse(self, refusal: Refused) -> None:
        """Answer what is not a request, and close."""
        request = self._request
        self._reading_body = False
        self._pending = b""
        self._closing = True
        if request is not None:
            request.client_failed(refusal)
            return
        self._room.unfinished(self)
        status, headers, body = self.factory.on_refused(refusal, self.peer, self.secure, b"HTTP/1.1")
        self._out.append(b"HTTP/1.1 %d %b\r\n" % (status, reason_of(status)))
        for name, value in headers:
            self._out += (name, b": ", value, b"\r\n")
        self._out += (b"connection: close\r\n\r\n", body)
        self.flush()
        self._linger()

    def _linger(self) -> None:
        """Read, and forget, what the client still sends, so that no reset destroys its answer before it is read."""
        self._over = self._lingering = True
        self._pending = b""
        self._reading_body = self._body_paused = False
        self._resume_reading()
        if self._writing_paused:
            self._await_body()
        else:
            self._half_close()

    def _half_close(self) -> None:
        self._lingering = False
        self._unsent = 0
        self.deadline = self._seconds() + LINGER
        self.transport.unregisterProducer()
        if self.secure:
            # TLS says good-bye by itself, and waits for the other side to do so.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def _close(self) -> None:
        self._over = True
        self._unsent = unsent(self.transport)
        self._await_body()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _cut(self) -> None:
        self._over = True
        self.deadline = NEVER
        self.transport.abortConnection()


classImplements(HTTP1Channel, IPushProducer)
