# Compiled: see docs/decisions/compiled.md
"""HTTP/1.1 client for upstreams: one exchange at a time on a connection, answers checked strictly (RFC 9112)."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, ISSLTransport, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.errors import UpstreamError, UpstreamLost, UpstreamTimedOut
from apigw.wire.headers import Headers
from apigw.wire.http1.response import BODY, COMPLETE, SWITCHED, WAITING, ResponseReader
from apigw.wire.http1.write_head import request_head
from apigw.wire.interfaces import Receiver, Told, UpstreamConnection
from apigw.wire.reactor.layers import beneath_tls, is_readable
from apigw.wire.reactor.sending import JOINED
from apigw.wire.reactor.turns import Turns
from apigw.wire.tls_errors import why_lost
from apigw.wire.tunnel import End

CLOSING_TIME: Final = 30.0
"""Seconds that the upstream has to read what was written, once the connection is being closed."""

# The states of a connection.
CONNECTING: Final = 0
IDLE: Final = 1
BUSY: Final = 2  # with an exchange, whose request and response have states of their own
TUNNEL: Final = 3
CLOSING: Final = 4  # takes no further exchange
LOST: Final = 5

CONNECTION = {
    CONNECTING: {IDLE, CLOSING, LOST},
    IDLE: {BUSY, CLOSING, LOST},
    BUSY: {IDLE, TUNNEL, CLOSING, LOST},
    TUNNEL: {CLOSING, LOST},
    CLOSING: {LOST},
    LOST: set[int](),
}
"""The transitions of a connection. Those of a response are in ``response``. A call that allows no transition from the
current state raises ``RuntimeError``."""

# The states of a request.
UNSENT: Final = 0
SENDING: Final = 1
SENT: Final = 2

REQUEST = {UNSENT: {SENDING}, SENDING: {SENT}, SENT: {UNSENT}}
"""The transitions of a request: by ``send``, by ``finish``, and by the end of the exchange."""


class HTTP1Connection(UpstreamConnection):
    """An ``UpstreamConnection`` for HTTP/1.1. ``on_free``, ``on_tunnel`` and ``on_lost`` are those of ``Make``."""

    transport: Any

    def __init__(self, deadlines: Deadlines, on_free: Told, on_tunnel: Told, on_lost: Told) -> None:
        super().__init__()
        self._deadlines = deadlines
        self._on_free = on_free
        self._on_tunnel = on_tunnel
        self._on_lost = on_lost
        self._state = CONNECTING
        self._request = UNSENT
        self._response = ResponseReader()
        self._out: list[bytes] = []
        self._chunked = False
        self._reading_paused = False
        self._writing_paused = False
        self._turns: Turns | None = None
        """With these, bytes that came before a request are recognised later: the socket need not be checked first."""
        self._turn = -1  # that of the last request

    @property
    def event_stream(self) -> bool:
        return self._response.event_stream

    def _become(self, state: int, deadline: float = NEVER) -> None:
        """Enter a state with its deadline, which replaces that of the previous state."""
        self._state = state
        self.deadline = deadline
        self.usable = state == IDLE and self._turns is not None

    def _wait(self) -> None:
        """Set the deadline of a busy connection: only while the upstream has to answer, or to read more."""
        waits = (self._request == SENT or self._writing_paused) and not self._reading_paused
        lasts = not waits or self._response.event_stream
        self.deadline = NEVER if lasts else self._deadlines.seconds() + self.timeout

    # The exchange's side.

    def send(
        self,
        method: bytes,
        target: bytes,
        authority: bytes,
        fields: Headers,
        content_length: int | None,
        upgrade: bool,
        timeout: float,
        receiver: Receiver,
        trailers: bool = False,
    ) -> None:
        """The head goes out with the first ``write``, ``flush`` or ``finish``."""
        if self._state != IDLE:
            raise RuntimeError("the connection is not idle")
        self._become(BUSY)
        self._request = SENDING
        self.receiver = receiver
        response = self._response
        response.state = WAITING
        response.bodyless = method == b"HEAD"
        response.upgrade = upgrade
        self.timeout = timeout
        self._chunked = content_length is None
        self._turn = -1 if self._turns is None else self._turns.turn
        self._out.append(request_head(method, target, authority, fields, content_length, upgrade))

    def write(self, data: bytes) -> None:
        if not self._is_sending() or not data:
            return
        if len(data) > JOINED and not self._chunked:  # not copied
            self.flush()
            self.transport.write(data)
            return
        self._out += (b"%x\r\n" % len(data), data, b"\r\n") if self._chunked else (data,)
        self.flush()

    def flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            self.transport.write(b"".join(out))

    def finish(self, trailers: Headers | None = None) -> None:
        if not self._is_sending():
            return
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self._request = SENT
        self._wait()
        self.flush()

    def _is_sending(self) -> bool:
        """False for a connection that is closing or lost: the caller may not have been notified yet."""
        if self._state == BUSY and self._request == SENDING:
            return True
        if self._state >= CLOSING:
            return False
        raise RuntimeError("no request is being sent")

    def pause_response(self) -> None:
        if not self._reading_paused and self._state == BUSY:
            self._reading_paused = True
            self._wait()
            self.transport.pauseProducing()

    def resume_response(self) -> None:
        if self._reading_paused and self._state == BUSY:
            self._reading_paused = False
            self._wait()
            self.transport.resumeProducing()

    def abandon(self) -> None:
        """End the exchange and the connection: its answer could still arrive, so no other exchange can use it."""
        self._forget()
        self._out.clear()
        self._drop()

    def give_up(self) -> End:
        if self._state != TUNNEL:
            raise RuntimeError("not a tunnel")
        self._on_tunnel(self)
        return End(self.transport, self._response.rest, self.close)

    # The pool's side.

    def connect_until(self, deadline: float) -> None:
        if self._state == CONNECTING:
            self.deadline = deadline

    def is_quiet(self) -> bool:
        if self._state != IDLE:
            return False
        base = beneath_tls(self.transport)
        if not is_readable(base):
            return True
        if base is self.transport:
            return False
        # It may be a message of TLS itself, such as a session ticket (RFC 8446 §4.6): reading shows which it is.
        return base.doRead() is None and self._state == IDLE and not base.disconnecting and not is_readable(base)

    def close(self) -> None:
        if self._state < CLOSING:
            self._become(CLOSING, self._deadlines.seconds() + CLOSING_TIME)
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    # From the transport.

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        transport.registerProducer(self, True)  # type: ignore[attr-defined]  # every TCP transport has it
        self._deadlines.watch(self)
        reactor = beneath_tls(transport).reactor
        self._turns = reactor if isinstance(reactor, Turns) else None
        if not ISSLTransport.providedBy(transport):
            # The wrapper that endpoints put between transport and protocol is not needed after the connect.
            transport.protocol = self  # type: ignore[attr-defined]  # every TCP transport has it
            self._ready()

    def handshakeCompleted(self) -> None:
        if self._state == CONNECTING:
            self._ready()

    def _ready(self) -> None:
        self._become(IDLE)
        self.when_ready.callback(self)

    def dataReceived(self, data: bytes) -> None:
        response, receiver = self._response, self.receiver
        if receiver is None:
            # Nothing was requested: these bytes must not become the answer to the next request.
            self._drop()
            return
        before = response.state
        if before == WAITING and self._is_unsent():
            self._fail(UpstreamLost("an answer came before the question", silent=True, unsent=True))
            return
        try:
            response.read(data)
        except UpstreamError as error:
            self._fail(error)
            return
        state = response.state
        self.version = response.version
        if state == COMPLETE and before != BODY and not response.trailers:
            pieces = response.pieces
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            status, reason, headers, reusable = response.status, response.reason, response.headers, response.reusable
            response.forget()
            self._complete(reusable)
            receiver.response_whole(status, reason, headers, body)
        elif state == SWITCHED:
            self._switch()
        elif state >= BODY:
            self._tell(receiver, before != BODY)

    def _tell(self, receiver: Receiver, begun: bool) -> None:
        """Pass what has been read of an answer to the receiver. ``begun``: its head is new."""
        response = self._response
        pieces, response.pieces = response.pieces, []
        if begun:
            receiver.response_started(response.status, response.reason, response.headers)
        if self.receiver is not receiver:
            return
        if pieces:
            receiver.response_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self.receiver is not receiver:
            return
        if response.state == COMPLETE:
            reusable, trailers = response.reusable, response.trailers
            response.forget()
            self._complete(reusable)
            if trailers:
                receiver.response_trailers(trailers)
            receiver.response_finished()
            return
        receiver.response_paused()
        if response.moved and self.receiver is receiver:
            self._wait()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        response = self._response
        was, to_the_end = response.state, response.close_delimited
        receiver = self._forget()
        self._become(LOST)
        self._deadlines.forget(self)
        response.close()
        if receiver is not None:
            if was == BODY and to_the_end and reason.check(ConnectionDone):
                receiver.response_finished()
            else:
                receiver.response_failed(UpstreamLost(why_lost(reason.value), was == WAITING, self._is_unsent()))
        self._on_lost(self)
        if not self.when_ready.called:
            self.when_ready.errback(reason)

    def deadline_passed(self) -> None:
        if self.receiver is not None:
            self._fail(UpstreamTimedOut("no answer in time"))
        elif self._state == IDLE and self.used:
            self.close()
        else:
            self._drop()

    # Back-pressure: the transport's buffer to the upstream is full, or has room again.

    def pauseProducing(self) -> None:
        self._writing_paused = True
        if self.receiver is not None:
            self._wait()
            self.receiver.pause_body()

    def resumeProducing(self) -> None:
        self._writing_paused = False
        if self.receiver is not None:
            self._wait()
            self.receiver.resume_body()

    def stopProducing(self) -> None:
        """The transport is lost. ``connectionLost`` follows."""

    # Endings of an exchange.

    def _complete(self, reusable: bool) -> None:
        """The answer is complete: free the connection for the next exchange, or drop it."""
        self.receiver = None
        self.used = True
        if reusable and self._request == SENT and not self._writing_paused:
            if self._reading_paused:
                # The last piece filled the client's buffer, and nothing else will resume reading.
                self._reading_paused = False
                self.transport.resumeProducing()
            self._request = UNSENT
            self._become(IDLE)
            self._on_free(self)
        else:
            self._drop()

    def _switch(self) -> None:
        """The answer is 101: the receiver takes the connection with ``give_up``."""
        receiver = self._forget()
        self._response.close()
        self._become(TUNNEL)
        self.transport.unregisterProducer()
        assert receiver is not None
        receiver.response_started(101, self._response.reason, self._response.headers)

    def _fail(self, error: UpstreamError) -> None:
        receiver = self._forget()
        self._drop()
        if receiver is not None:
            receiver.response_failed(error)

    def _forget(self) -> Receiver | None:
        """End the exchange. Its receiver gets no further calls."""
        receiver, self.receiver = self.receiver, None
        self._response.forget()
        return receiver

    def _drop(self) -> None:
        if self._state != LOST:
            self._become(CLOSING)
            self.transport.abortConnection()

    def _is_unsent(self) -> bool:
        """Whether the request is held until the end of this turn: nothing read so far can be its answer."""
        return self._turns is not None and self._turn == self._turns.turn


classImplements(HTTP1Connection, IPushProducer, IHandshakeListener)
