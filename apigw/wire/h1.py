"""HTTP/1.1 towards clients: RFC 9112, read strictly.

llhttp parses; this file decides where each message begins and ends before it does. A head is handed to the parser
alone and whole, so the request line that it read can be compared with the bytes that were sent, and what follows
a message is never parsed before that message is answered.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES
from zope.interface import implementer

from apigw.wire.deadlines import NEVER
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import HOP_BY_HOP, Headers, connection_options
from apigw.wire.request import BODYLESS_STATUS, Request
from apigw.wire.target import check_authority, check_target, split_absolute

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

_SPECIAL = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
"""Fields that say how to read the message, or that end here: what is left is for whoever is asked."""
_CONNECTION_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade"})
_NO_OPTIONS: frozenset[bytes] = frozenset()
_METHOD_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^ ]+ HTTP/1\.[01]\r\n").match


@implementer(IPushProducer)
class HTTP1Channel(Protocol):
    """One connection. Requests on it are answered in order, one at a time."""

    transport: Any
    deadline: float = NEVER

    def __init__(self, factory: ChannelFactory, peer: bytes, secure: bool) -> None:
        self.factory = factory
        self.peer = peer
        self.secure = secure
        self._seconds = factory.deadlines.seconds
        self._parser = HttpRequestParser(self)
        self._pending = b""  # the beginning of a head, or requests that came before their turn
        self._searched = 0
        self._busy = False
        self._request: Request | None = None
        self._reading_body = False
        self._remaining: int | None = None  # of a body with a Content-Length
        self._body_paused = False
        self._authority = b"?"  # that of the last request: nearly always that of the next
        self._message_complete = False
        self._expects_continue = False
        self._closing = False
        self._over = False  # nothing more is read from this client
        self._chunked = False
        self._bodyless = False
        self._out: list[bytes] = []
        self._producer: IPushProducer | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._lost = False

    # From the transport.

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        transport.registerProducer(self, True)  # type: ignore[attr-defined]
        self.deadline = self._seconds() + self.factory.settings.keepalive_timeout
        self.factory.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
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
            while data and not self._over and not self._lost:
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
        self.deadline = self._seconds() + self.factory.settings.client_body_timeout
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._writing_paused = False
        if self._request is None:
            if not self._over and not self._reading_body:
                self._next()
            return
        self.deadline = NEVER
        if self._reading_body and not self._body_paused:
            self._await_body()
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The transport is lost; ``connectionLost`` follows."""

    def deadline_passed(self) -> None:
        request = self._request
        if request is None and self._pending and not self._over and not self._writing_paused:
            self._refuse(Refused(408, "The request's headers took too long."))
        elif request is not None and not request.started and self._reading_body:
            self._refuse(Refused(408, "The request's body took too long."))
        elif request is None and not self._over:
            self._close()
        else:
            self.deadline = NEVER
            self.transport.abortConnection()

    # A head.

    def _read_head(self, data: bytes) -> bytes:
        """Parse one head off the front of ``data`` and start its exchange. Returns the rest."""
        settings = self.factory.settings
        if data.startswith(b"\r\n"):
            # RFC 9112 §2.2: one empty line before a request is forgiven.
            data = data[2:]
        end = data.find(END_OF_HEAD, max(0, self._searched - 3))
        if end < 0 or end > settings.max_header_size:
            if len(data) > settings.max_header_size:
                if b"\r\n" in data[: settings.max_header_size]:
                    raise Refused(431, "The request's headers are too large.")
                raise Refused(414, "The request target is too long.")
            if not self._pending and not self._searched:
                self.deadline = self._seconds() + settings.client_header_timeout
            self._pending = data
            self._searched = len(data)
            return b""
        self._searched = 0
        end += 4
        head = data if end == len(data) else data[:end]
        request = self._parse_head(head)
        self._start(request)
        return data[end:]

    def _parse_head(self, head: bytes) -> Request:
        self._url = b""
        self._headers: Headers = []
        self._special: Headers = []
        parser = self._parser
        upgrade = False
        try:
            parser.feed_data(head)
        except HttpParserUpgrade:
            upgrade = True
            self._parser = HttpRequestParser(self)
        except HttpParserInvalidMethodError:
            if _METHOD_TOKEN(head):
                raise Refused(501, "The method is not known.") from None
            raise Refused(400, "The request line is malformed.") from None
        except HttpParserError as error:
            raise Refused(400, f"The request is malformed: {error}.") from None
        headers, special = self._headers, self._special
        if len(headers) + len(special) > self.factory.settings.max_header_count:
            raise Refused(431, "The request has too many headers.")
        if b" \r\n" in head or b"\t\r\n" in head:
            headers = [(name, value.rstrip(b" \t")) for name, value in headers]
            special = [(name, value.rstrip(b" \t")) for name, value in special]
        uri = self._url
        line = b"%b %b HTTP/1.1\r\n" % (method := parser.get_method(), uri)
        if head.startswith(line):
            protocol = b"HTTP/1.1"
        elif head.startswith(line.replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n")):
            protocol = b"HTTP/1.0"
            self._closing = True
        else:
            raise Refused(400, "The request line is malformed, or its version neither HTTP/1.0 nor HTTP/1.1.")

        authority: bytes | None = None
        length: int | None = 0
        options: frozenset[bytes] = _NO_OPTIONS
        expects = False
        for name, value in special:
            if name == b"host":
                if authority is not None:
                    raise Refused(400, "The Host is repeated.")
                authority = value
                headers.append((name, value))
            elif name == b"content-length":
                length = int(value)
                headers.append((name, value))
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or protocol != b"HTTP/1.1":
                    raise Refused(400, "The only transfer coding that is understood is chunked, in HTTP/1.1.")
                length = None
            elif name == b"connection":
                options |= connection_options(value)
            elif name == b"expect":
                expects = value.lower() == b"100-continue"
        if authority != self._authority:
            self._authority = _checked_authority(authority, protocol)
        if method == b"CONNECT":
            raise Refused(405, "CONNECT is not offered.")
        if not uri.startswith(b"/"):
            if uri == b"*":
                raise Refused(400, "The request target * has no path.")
            uri = split_absolute(uri, self._authority)
        path, query = check_target(uri)
        request = Request(self, method, uri, path, query, self._authority, headers, protocol, length)
        request.body_complete = length == 0
        if options:
            if b"close" in options:
                self._closing = True
            request.drop_headers(options - _CONNECTION_OPTIONS)
        if upgrade:
            request.upgrade = method == b"GET" and length == 0 and _names_websocket(special)
            if length != 0:
                self._parser.feed_data(_framing_only(length))
        self._expects_continue = expects and length != 0 and protocol == b"HTTP/1.1"
        return request

    def _start(self, request: Request) -> None:
        self._request = request
        self._bodyless = False
        if request.body_complete:
            self._reading_body = False
            self.deadline = NEVER
        else:
            self._reading_body = True
            self._message_complete = False
            self._remaining = request.content_length
            self._body_paused = False
            self._await_body()
        self.factory.on_request(request)

    # A body.

    def _read_body(self, data: bytes) -> bytes:
        """Hand on what belongs to this request's body. Returns the rest."""
        request = self._request
        rest = b""
        if self._remaining is not None:
            if len(data) > self._remaining:
                data, rest = data[: self._remaining], data[self._remaining :]
            self._remaining -= len(data)
            self._feed(data)
        else:
            # A chunked message ends with an empty line, so it cannot end elsewhere than after one: fed up to each in turn,
            # the parser never sees what follows the message. What may be the beginning of an empty line is held back.
            end = data.find(END_OF_HEAD)
            if end >= 0:
                data, rest = data[: end + 4], data[end + 4 :]
            elif held := 3 * data.endswith(b"\r\n\r") or 2 * data.endswith(b"\r\n") or data.endswith(b"\r"):
                self._pending = data[-held:]
                data = data[:-held]
            self._feed(data)
        if self._message_complete:
            self._reading_body = False
            if request is not None:
                self.deadline = NEVER
                request.body_finished()
            else:
                self._next()
        return rest

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            pass
        except HttpParserError as error:
            raise Refused(400, f"The request's body is malformed: {error}.") from None

    def _await_body(self) -> None:
        self.deadline = self._seconds() + self.factory.settings.client_body_timeout

    # From the parser.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _SPECIAL:
            if not self._reading_body:
                self._special.append((name, value))
        elif not self._reading_body:  # else it is a trailer, and dropped
            self._headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        if self._request is not None:
            self._await_body()
            self._request.body_received(data)

    def on_message_complete(self) -> None:
        self._message_complete = True

    # wire.request.Stream: what the exchange does with the body.

    def want_body(self, request: Request) -> None:
        if self._expects_continue:
            self._expects_continue = False
            if request.bytes_received == 0 and not request.started:
                self.transport.write(CONTINUE)

    def pause_body(self) -> None:
        if self._reading_body and not self._body_paused:
            self._body_paused = True
            self.deadline = NEVER
            self._pause_reading()

    def resume_body(self) -> None:
        if self._body_paused:
            self._body_paused = False
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
            out += (name, b": ", value, b"\r\n")
        if request.method == b"HEAD" or status in BODYLESS_STATUS:
            self._bodyless = True
        elif not framed:
            if request.clientproto == b"HTTP/1.1":
                self._chunked = True
                out.append(b"transfer-encoding: chunked\r\n")
            else:
                self._closing = True
        if self._closing or self.factory.draining:
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
            if request.body_complete:
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
        self.transport.abortConnection()

    def set_producer(self, producer: IPushProducer | None) -> None:
        self._producer = producer
        if producer is not None and self._writing_paused:
            producer.pauseProducing()

    def start_tunnel(self, request: Request, headers: Headers) -> tuple[Any, bytes]:
        out = [b"HTTP/1.1 101 Switching Protocols\r\n"]
        for name, value in headers:
            out += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*out, b"\r\n")))
        self.transport.unregisterProducer()
        self._request = None
        self.deadline = NEVER
        early, self._pending = self._pending, b""
        self._reading_body = self._body_paused = False
        self._resume_reading()
        return self.transport, early

    # Between requests, and the end.

    def drain(self) -> None:
        """Close when the exchange in flight, if any, is over."""
        if self._request is None and not self._reading_body and not self._pending:
            self._close()
        else:
            self._closing = True

    def is_idle(self) -> bool:
        return self._request is None and not self._pending

    def cut(self) -> None:
        """Close now, whatever is in flight."""
        self.transport.abortConnection()

    def _next(self) -> None:
        """The connection is free for the next request, which may have arrived already."""
        if self.factory.draining and not self._pending:
            self._close()
            return
        self.deadline = self._seconds() + self.factory.settings.keepalive_timeout
        if self._busy:
            return
        if not self._writing_paused:
            self._resume_reading()
            if self._pending:
                data, self._pending = self._pending, b""
                self.dataReceived(data)

    def _can_discard(self, request: Request) -> bool:
        """Whether reading the rest of this body costs less than a new connection would."""
        return self._remaining is not None and self._remaining <= DISCARDED_BODY and not self._expects_continue

    def _refuse(self, refusal: Refused) -> None:
        """Answer what is not a request, and close."""
        request = self._request
        self._reading_body = False
        self._pending = b""
        self._closing = True
        if request is not None:
            request.client_failed(refusal)
            return
        status, headers, body = self.factory.on_refused(refusal, self.peer, self.secure, b"HTTP/1.1")
        self._out.append(b"HTTP/1.1 %d %b\r\n" % (status, RESPONSES[status]))
        for name, value in headers:
            self._out += (name, b": ", value, b"\r\n")
        self._out += (b"connection: close\r\n\r\n", body)
        self.flush()
        self._linger()

    def _linger(self) -> None:
        """Read, and forget, what the client still sends, so that it gets to read its answer before a reset destroys it."""
        self._over = True
        self._reading_body = self._body_paused = False
        self._resume_reading()
        self.deadline = self._seconds() + LINGER
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is not None and not self.secure:
            half_close()

    def _close(self) -> None:
        self._over = True
        self.deadline = self._seconds() + self.factory.settings.client_body_timeout
        self.transport.unregisterProducer()
        self.transport.loseConnection()


def _checked_authority(authority: bytes | None, protocol: bytes) -> bytes:
    if authority is None:
        if protocol == b"HTTP/1.1":
            raise Refused(400, "The Host is missing.")
        return b""
    check_authority(authority)
    return authority


def _names_websocket(headers: Headers) -> bool:
    return [value.lower() for name, value in headers if name == b"upgrade"] == [b"websocket"]


def _framing_only(length: int | None) -> bytes:
    """A head for a parser that is to read only a body: after ``Upgrade``, llhttp stops before it."""
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return b"POST / HTTP/1.1\r\n" + framing + END_OF_HEAD
