# Compiled: see docs/decisions/compiled.md
"""HTTP/1.1 towards upstreams: one connection, one exchange at a time, and no trust in what comes back (RFC 9112)."""

from __future__ import annotations

import select
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, ISSLTransport, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.errors import UpstreamError, UpstreamLost, UpstreamMalformed, UpstreamTimedOut
from apigw.wire.headers import FIELD_VALUE, HOP_BY_HOP, KEEP_ALIVE, NO_LINE, Headers, connection_options
from apigw.wire.interfaces import Message, Receiver, Told, UpstreamConnection
from apigw.wire.reactor.transport import beneath_tls
from apigw.wire.tunnel import End

END_OF_HEAD = b"\r\n\r\n"
MAX_HEAD = 256 * 1024
MAX_HEADERS = 1000
MAX_INTERIM = 32
"""Interim responses before the one that counts. More are no information, but a way to keep somebody busy."""
CLOSING = 30.0
"""Seconds in which the upstream may take what is left for it, once the connection is being closed."""
EVENT_STREAM = b"text/event-stream"
_SPECIAL = HOP_BY_HOP | {b"content-length", b"content-type"}
_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
"""Methods whose requests say that they have no body (RFC 9110 §8.6)."""
_USUAL_REASONS = frozenset({b"OK", b""})


def rendered(message: Message) -> bytes:
    """A message's bytes up to its body, canonical: RFC 9112 §3 to §6. Its body has exactly one framing."""
    lines = [b"".join((message.method, b" ", message.target, b" HTTP/1.1\r\nhost: ", message.authority))]
    fields: list[Any] = cast("list[Any]", message.fields)  # a pair is joined as it is, and not unpacked
    for pair in fields:
        lines.append(b": ".join(pair))
    length = message.content_length
    if length is None:
        lines.append(b"transfer-encoding: chunked")
    elif length or message.method in _WITH_BODY:
        lines.append(b"content-length: %d" % length)
    if message.upgrade:
        lines.append(b"connection: upgrade\r\nupgrade: websocket")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


class HTTP1Connection(UpstreamConnection):
    """An ``UpstreamConnection`` by HTTP/1.1.

    ``on_free`` is called with this connection when it may carry the next exchange, ``on_tunnel`` when it has become a
    tunnel, which is no exchange any more, and ``on_lost`` when it is gone.
    """

    transport: Any
    knows_turns = False
    """Whether what was there before a request is told from its answer, although nobody looked for it then."""

    def __init__(self, deadlines: Deadlines, on_free: Told, on_tunnel: Told, on_lost: Told) -> None:
        super().__init__()
        self._deadlines = deadlines
        self._on_free = on_free
        self._on_tunnel = on_tunnel
        self._on_lost = on_lost
        self._parser = HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._pending = b""
        self._out: list[bytes] = []
        self._timeout = 0.0
        self._chunked = False
        self._sent = False
        self._reading_paused = False
        self._writing_paused = False
        self._begun = False
        self._moved = False
        self._fruitless = 0
        self._interim = 0
        self._turn: int | None = None
        self._close_delimited = False

    # The exchange's side.

    def send(self, message: Message, receiver: Receiver) -> None:
        """The head goes out with the first ``write``, ``flush`` or ``finish``."""
        self._receiver = receiver
        self.deadline = NEVER  # it is no longer idle, and waits for nothing before ``finish``
        self._timeout = message.timeout
        self._bodyless = message.method == b"HEAD"
        self._upgrade = message.upgrade
        self._chunked = message.content_length is None
        self._in_body = self._close_delimited = self._message_complete = self._begun = self._sent = False
        self._reusable = True
        self.event_stream = False
        self._interim = self._fruitless = 0
        self._turn = self._reactor.turn if self.knows_turns else None
        self._out.append(rendered(message))

    def write(self, data: bytes) -> None:
        if self.lost or not data:
            return
        if self._chunked:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)
        self.flush()

    def flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self.transport.write(data)

    def finish(self) -> None:
        if self.lost:
            return
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.flush()
        self._sent = True
        self._wait()

    def pause_response(self) -> None:
        if not self._reading_paused and not self.lost:
            self._reading_paused = True
            self.deadline = NEVER
            self.transport.pauseProducing()

    def resume_response(self) -> None:
        if self._reading_paused and not self.lost:
            self._reading_paused = False
            self._wait()
            self.transport.resumeProducing()

    def abandon(self) -> None:
        """The connection is of no use to others, as the answer may still come."""
        self._receiver = None
        self._out.clear()
        self._drop()

    # The pool's side.

    def connect_until(self, deadline: float) -> None:
        self.deadline = deadline

    def is_usable(self, careful: bool) -> bool:
        return not self.lost and ((self.knows_turns and not careful) or self._is_quiet())

    def _is_quiet(self) -> bool:
        """Whether nothing waits to be read: neither the end of the connection nor an answer that nobody asked for."""
        poll = select.poll()
        poll.register(beneath_tls(self.transport).getHandle(), select.POLLIN)
        return not poll.poll(0)

    def idle_until(self, deadline: float) -> None:
        self.deadline = deadline

    def close(self) -> None:
        self.lost = True
        self.deadline = self._deadlines.seconds() + CLOSING
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # From the transport.

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        transport.registerProducer(self, True)  # type: ignore[attr-defined]
        self._deadlines.watch(self)
        self._reactor = beneath_tls(transport).reactor
        self.knows_turns = hasattr(self._reactor, "turn")
        if not ISSLTransport.providedBy(transport):
            # Endpoints put a wrapper between transport and protocol, whose work is done once they are connected.
            transport.protocol = self  # type: ignore[attr-defined]
            self._ready()

    def handshakeCompleted(self) -> None:
        self._ready()

    def _ready(self) -> None:
        self.deadline = NEVER
        self.when_ready.callback(self)

    def dataReceived(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            # Nobody asked. Whoever would be next must not get it for an answer.
            self._drop()
            return
        if not self._begun and self._is_unsent():
            self._fail(UpstreamLost("an answer came before the question", silent=True, unsent=True))
            return
        self._begun = True
        try:
            if self._in_body:
                self._feed(data)
            else:
                self._read_head(data)
        except UpstreamError as error:
            self._fail(error)
            return
        if self._receiver is receiver:
            if self._message_complete:
                self._complete()
            elif self._in_body:
                receiver.response_paused()
                if self._receiver is receiver:
                    self._has_moved(len(data))

    def _has_moved(self, size: int) -> None:
        """A piece of the body moves the deadline. Chunk extensions and trailers do not, and have a limit."""
        if self._moved:
            self._moved = False
            self._fruitless = 0
            if self.deadline != NEVER:
                self._wait()
        else:
            self._fruitless += size
            if self._fruitless > MAX_HEAD:
                self._fail(UpstreamMalformed("the response's trailers are too large"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self._deadlines.forget(self)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            if self._close_delimited and reason.check(ConnectionDone):
                receiver.response_finished()
            else:
                error = UpstreamLost("the connection closed", silent=not self._begun, unsent=self._is_unsent())
                receiver.response_failed(error)
        self._on_lost(self)
        if not self.when_ready.called:
            self.when_ready.errback(reason)

    def deadline_passed(self) -> None:
        if self._receiver is not None:
            self._fail(UpstreamTimedOut("no answer in time"))
        elif self.used and not self.lost:
            self.close()
        else:
            self._drop()

    # The transport's buffer to the upstream fills and drains.

    def pauseProducing(self) -> None:
        self._writing_paused = True
        if self._receiver is not None:
            self._wait()
            self._receiver.pause_body()

    def resumeProducing(self) -> None:
        self._writing_paused = False
        if self._receiver is not None:
            if not self._sent:
                self.deadline = NEVER
            self._receiver.resume_body()

    def stopProducing(self) -> None:
        """The transport is lost; ``connectionLost`` follows."""

    # The response.

    def _read_head(self, data: bytes) -> None:
        searched = 0
        if self._pending:
            searched = len(self._pending) - 3
            data = self._pending + data
            self._pending = b""
        end = data.find(END_OF_HEAD, max(0, searched))
        if end < 0 or end > MAX_HEAD:
            if len(data) > MAX_HEAD + 3:
                raise UpstreamMalformed("the response's headers are too large")
            if not data.startswith(b"HTTP/1.") and not b"HTTP/1.".startswith(data):
                raise UpstreamMalformed("not an HTTP/1.1 response")
            if NO_LINE(data, max(0, searched)):
                raise UpstreamMalformed("a control character, or CR or LF without the other, in the response's headers")
            self._pending = data
            return
        end += 4
        rest = b""
        if end != len(data):
            rest = data[end:]
            data = data[:end]
        persistent = data.startswith(b"HTTP/1.1 ")
        if not persistent and not data.startswith(b"HTTP/1.0 "):
            raise UpstreamMalformed("not an HTTP/1.1 response")
        self._reason = b""
        self._headers: Headers = []
        self._special: Headers = []
        parser = self._parser
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            pass
        except HttpParserError as error:
            raise UpstreamMalformed(str(error)) from None
        status = parser.get_status_code()
        headers, special = self._headers, self._special
        if data.find(b" \r\n") >= 0 or data.find(b"\t\r\n") >= 0:  # ``in`` first tries whether bytes are a number
            headers = [(name, value.rstrip(b" \t")) for name, value in headers]
            special = [(name, value.rstrip(b" \t")) for name, value in special]
            self._reason = self._reason.rstrip(b" \t")
        if self._reason not in _USUAL_REASONS and not FIELD_VALUE(self._reason):
            raise UpstreamMalformed("the reason holds a control character")
        if status < 200:
            self._read_interim(status, headers, special, persistent, rest)
            return
        headers = self._check(status, headers, special, persistent)
        if self._bodyless:
            # llhttp would take the announced body from the next response.
            self._message_complete = True
            self._parser = HttpResponseParser(self)
        self._in_body = self._moved = True
        receiver = self._receiver
        assert receiver is not None
        receiver.response_started(status, self._reason, headers)
        if rest and self._receiver is receiver:
            self._feed(rest)

    def _check(self, status: int, headers: Headers, special: Headers, persistent: bool) -> Headers:
        """Decide the framing as RFC 9112 §6.3 does, refuse what reads in two ways, and drop what is for this hop."""
        if status > 999 or len(headers) > MAX_HEADERS:
            raise UpstreamMalformed("the status or the number of headers is not acceptable")
        framed = False
        for name, value in special:
            if name == b"content-length":
                framed = True
                headers.append((name, value))
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or not persistent or framed:
                    raise UpstreamMalformed("an unknown transfer coding, or chunked twice")
                framed = True
            elif name == b"content-type":
                headers.append((name, value))
                if value.startswith(EVENT_STREAM):
                    self.event_stream = True
                    self._timeout = NEVER
            elif name == b"connection":
                options = connection_options(value)
                if options is not KEEP_ALIVE:
                    headers = [header for header in headers if header[0] not in options]
                    if b"close" in options:
                        self._reusable = False
        if not persistent:
            self._reusable = False
        if not framed and not self._bodyless and status not in (204, 304):
            self._close_delimited = True
            self._reusable = False
        return headers

    def _read_interim(self, status: int, headers: Headers, special: Headers, persistent: bool, rest: bytes) -> None:
        """100 and 103 are dropped; 101 is the answer to an upgrade, and malformed to anything else (RFC 9110 §15.2)."""
        if status == 101:
            wanted = [value.lower() for name, value in special if name == b"upgrade"] == [b"websocket"]
            options = [connection_options(value) for name, value in special if name == b"connection"]
            if not self._upgrade or not persistent or not wanted or not any(b"upgrade" in option for option in options):
                raise UpstreamMalformed("an upgrade that was not asked for")
            receiver, self._receiver = self._receiver, None
            assert receiver is not None
            self.deadline = NEVER
            self._pending = rest
            self.transport.unregisterProducer()
            receiver.response_started(101, self._reason, headers)
            return
        if status < 100:
            raise UpstreamMalformed("not a status")
        self._message_complete = False
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise UpstreamMalformed("too many interim responses")
        if rest:
            self._read_head(rest)

    def give_up(self) -> End:
        early, self._pending = self._pending, b""
        self._on_tunnel(self)
        return End(self.transport, early, self.close)

    def _feed(self, data: bytes) -> None:
        if self._message_complete:
            self._reusable = False
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._reusable = False
        except HttpParserError as error:
            if not self._message_complete:
                raise UpstreamMalformed(str(error)) from None
            # The response is whole; what came behind it is not.
            self._reusable = False

    def on_status(self, reason: bytes) -> None:
        if self._message_complete:
            self._reusable = False
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # else it is a trailer, and dropped
            name = name.lower()
            if name in _SPECIAL:
                self._special.append((name, value))
            else:
                self._headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self._moved = True
        if self._receiver is not None and not self._message_complete:
            self._receiver.response_received(data)

    def on_message_complete(self) -> None:
        self._message_complete = True

    def on_message_begin(self) -> None:
        if self._in_body:
            self._reusable = False

    def _complete(self) -> None:
        receiver, self._receiver = self._receiver, None
        self.deadline = NEVER
        self.used = True
        if self._reusable and self._sent and not self._writing_paused:
            if self._reading_paused:
                # By the last piece, which filled the client's buffer: nobody else will let it go on.
                self._reading_paused = False
                self.transport.resumeProducing()
            self._on_free(self)
        else:
            self._drop()
        assert receiver is not None
        receiver.response_finished()

    def _fail(self, error: UpstreamError) -> None:
        receiver, self._receiver = self._receiver, None
        self._drop()
        if receiver is not None:
            receiver.response_failed(error)

    def _drop(self) -> None:
        self.lost = True
        self.deadline = NEVER
        self.transport.abortConnection()

    def _is_unsent(self) -> bool:
        """Whether the request is still held for the end of this turn, so that nothing read by now can be its answer."""
        return self._turn is not None and self._turn == self._reactor.turn

    def _wait(self) -> None:
        if (self._sent or self._writing_paused) and not self._reading_paused:
            self.deadline = self._deadlines.seconds() + self._timeout


classImplements(HTTP1Connection, IPushProducer, IHandshakeListener)
