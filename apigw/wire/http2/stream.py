# Compiled: see docs/decisions/compiled.md
"""One stream of an HTTP/2 server connection, with flow control both ways. It is the ``Stream`` of a ``Request``.

A stream holds at most ``STREAM_WINDOW`` bytes of the body for a listener that has paused: the client gets new window
only as the listener reads. Bytes of the answer that the client's windows or the transport do not allow yet are held
too, and the producer is paused beyond ``UNSENT_HIGH``.
"""

from __future__ import annotations

from typing import Final, final

from twisted.internet.interfaces import IPushProducer

from apigw.wire.deadlines import NEVER
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.http2.connection import Connection
from apigw.wire.http2.field import Field
from apigw.wire.http2.fields import check_trailers
from apigw.wire.http2.flow import BLOCKED, LAST, NOTHING, UNSENT_HIGH, UNSENT_LOW, Flow
from apigw.wire.http2.frames import Code, StreamFault, reset_frame
from apigw.wire.http2.hpack import encode_head, encode_trailers
from apigw.wire.http2.patience import Patience
from apigw.wire.http2.states import (
    BODY,
    CLOSED,
    DONE,
    ENDED,
    ENDING,
    EXPECT,
    HELD,
    OPEN,
    PAUSED,
    SHUT,
    SILENT,
)
from apigw.wire.request import BODYLESS_STATUS, Request
from apigw.wire.tunnel import End

CONTINUE: Final = encode_head(100, [])


@final
class HTTP2Stream(Patience):
    def __init__(self, channel: Connection, number: int, send_window: int, ended: bool) -> None:
        """``ended``: the client's HEADERS have END_STREAM."""
        super().__init__(channel)
        self.number = number
        self.flow = Flow(channel, number, send_window)
        self._reading: int = DONE if ended else PAUSED
        self._writing: int = SILENT
        self._last = b""  # the last byte of such a body, until END_STREAM
        self._held: bytearray | None = None  # for a listener that is paused, or does not exist yet
        self._head: bytes | None = None  # of the answer, not sent yet
        self._bodyless = False
        self._producer: IPushProducer | None = None
        self._producer_paused = False

    @property
    def closed(self) -> bool:
        return self._writing == CLOSED

    # From the channel: frames of the client.

    def begin(self, request: Request, expects_continue: bool) -> None:
        """The fields made a request, whose exchange begins now."""
        self.request = request
        self._remaining = request.content_length
        if expects_continue:
            self._reading = EXPECT
        if self._reading < HELD:
            self._await_whole_body()

    def refuse(self, refusal: Refused, bodyless: bool) -> None:
        """Answer a malformed request."""
        status, headers, body = self.channel.factory.refuse(refusal, self.peer, self.secure, b"HTTP/2")
        self._head = encode_head(status, headers)
        if not bodyless:
            self.flow.add(body)
        self._writing = ENDING
        self.flush()

    def data_received(self, data: bytes, length: int, end: bool) -> None:
        """A DATA frame. ``length``: bytes that count against the windows. Raises ``StreamFault``."""
        before = self._reading
        if before >= HELD:
            raise StreamFault(Code.STREAM_CLOSED, "DATA on a stream that the client has ended.")
        if end:
            self._reading = HELD
        self.flow.received(length, length - len(data))
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0 or (end and self._remaining):
                raise StreamFault(Code.PROTOCOL_ERROR, "The request's body does not match its Content-Length.", 400)
            if end:
                data, self._last = self._last + data, b""
            elif data and not self._remaining:
                # The last byte waits for END_STREAM: a body that is too long must not look complete (RFC 9113 §8.1.1).
                data, self._last = data[:-1], data[-1:]
        if end:
            self._body_came()
        request = self.request
        if request is None or request.finished:
            if end:
                self._close_if_done()
            return
        if before != BODY:
            if data:
                self._held = (self._held or bytearray()) + data
                if before == EXPECT and not end:
                    self._reading = PAUSED
            return
        if not end and data:
            self._await_body()
            if self._is_slow(len(data)):
                self.broken(StreamFault(Code.CANCEL, "The request's body came too slowly.", 408))
                return
        self._deliver(request, data)

    def trailers_received(self, fields: list[Field], size: int, end: bool) -> None:
        """``size``: as for ``Endpoint.block_received``. Raises ``StreamFault``."""
        if self._reading >= HELD:
            raise StreamFault(Code.STREAM_CLOSED, "HEADERS on a stream that the client has ended.")
        if not end:
            raise StreamFault(Code.PROTOCOL_ERROR, "Trailers that do not end the stream.")
        check_trailers(fields, size, self.channel.factory.settings)
        if self.request is not None and fields:
            self.request.trailers = [field.pair for field in fields]
        self.data_received(b"", 0, True)

    def window_received(self, increment: int) -> None:
        """WINDOW_UPDATE. Raises ``StreamFault``."""
        self.flow.window_received(increment)
        self._go_on()

    def widen(self, increment: int) -> None:
        """The client's window changes by a new setting. Raises ``StreamFault``."""
        self.flow.widen(increment)
        self._go_on()

    def _go_on(self) -> None:
        if self._head is None and self.flow.unsent and self.flow.send_window > 0:
            self._push_all()

    def lost(self) -> None:
        """The client has reset the stream, or the connection is gone."""
        request = self.request
        self._close()
        if request is not None:
            request.client_failed(ClientLost())

    def broken(self, fault: StreamFault) -> None:
        """A stream error: answer it with a status if no answer has begun, else reset the stream."""
        request = self.request
        if request is not None and not request.finished:
            if fault.status and request.listener is not None and not request.started:
                request.client_failed(Refused(fault.status, fault.reason))
                if request.finished:
                    # Answered. The rest of the answer is sent as the windows allow; nothing more is read.
                    return
            else:
                request.client_failed(ClientLost())
        self.reset(fault.code)

    def reset(self, code: Code) -> None:
        if self._writing != CLOSED:
            self.channel.emit(reset_frame(self.number, code))
            if self._reading < HELD:
                self.channel.numbers.closed_early(self.number)
            self._close()

    # wire.request.Stream: what the exchange does with the body.

    def want_body(self, request: Request) -> None:
        if self._reading == EXPECT:
            self._reading = PAUSED
            if not request.started:
                self.channel.emit_head(self.number, CONTINUE, False)
                self.channel.flush()

    def pause_body(self) -> None:
        if self._reading == DONE:
            if self.request is not None and not self.request.body_complete:
                self._reading = HELD
        elif self._reading == BODY:
            self._reading = PAUSED
            if self._pace is not None:
                self._pace.pause(self.channel.seconds())
            self._body_due = NEVER
            self._set_deadline()

    def resume_body(self) -> None:
        request = self.request
        if request is None:
            return
        if self._pace is not None:
            self._pace.resume(self.channel.seconds())
        if self._reading < HELD:
            self._reading = BODY
            self._await_body()
        held, self._held = self._held, None
        self._deliver(request, b"" if held is None else bytes(held))
        self.channel.flush()

    def _deliver(self, request: Request, data: bytes) -> None:
        if self._reading == HELD:
            self._reading = DONE
        if data:
            self.flow.taken += len(data)
            request.body_received(data)
        if self._reading == DONE:
            if not request.body_complete:
                request.body_finished()
        elif self._reading == BODY:
            self.flow.give_back()

    # wire.request.Stream: the response.

    def start_response(self, request: Request, status: int, reason: bytes, headers: Headers) -> None:
        if self._writing == CLOSED:
            return
        self._bodyless = status in BODYLESS_STATUS or request.method == b"HEAD"
        self._head = encode_head(status, self.channel.factory.dates.dated(headers))
        self._writing = OPEN

    def respond(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        self.start_response(request, status, reason, headers)
        self.send(body)
        self.end_response(request)

    def send(self, data: bytes) -> None:
        if self._bodyless or not data or self._writing == CLOSED:
            return
        self.flow.add(data)
        if self.flow.unsent > UNSENT_HIGH:
            self.pause_producer()

    def flush(self) -> None:
        if self._writing == CLOSED:
            return
        channel = self.channel
        if self._head is not None:
            end = self._writing == ENDING and not self.flow.unsent and self.flow.trailers is None
            channel.emit_head(self.number, self._head, end)
            self._head = None
            if end:
                self._writing = ENDED
                self._close_if_done()
        if self.flow.unsent or self._writing == ENDING:
            self._push_all()
        if self._body_due != NEVER and self.request is not None and self.request.is_stream:
            self._await_body()  # the answer has moved
        channel.flush()

    def end_response(self, request: Request, trailers: Headers | None = None) -> None:
        if self._writing == CLOSED:
            return
        self._writing = ENDING
        if trailers is not None and not self._bodyless:
            self.flow.trailers = encode_trailers(trailers)
        self._producer = None
        self._held = None
        self._body_came()
        self.flush()

    def unsent(self) -> int:
        return self.flow.unsent

    def abort(self, code: int = Code.INTERNAL_ERROR) -> None:
        self.reset(Code(code))
        self.channel.flush()

    def set_producer(self, producer: IPushProducer | None) -> None:
        if producer is not self._producer:
            self._producer = producer
            self._producer_paused = False
        if self.channel.writing_paused or self.flow.unsent > UNSENT_HIGH:
            self.pause_producer()

    def pause_producer(self) -> None:
        if self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def resume_producer(self) -> None:
        """Resume the producer if there is room."""
        if self._producer_paused and self.flow.unsent <= UNSENT_LOW and not self.channel.writing_paused:
            self._producer_paused = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def start_tunnel(self, request: Request, headers: Headers) -> End:
        raise RuntimeError("HTTP/2 streams are not offered as tunnels")

    def _push_all(self) -> None:
        while self.push():
            pass
        self.resume_producer()

    def push(self) -> bool:
        """Send the next DATA frame. Returns whether another may follow at once."""
        if self._writing >= ENDED:
            return False
        sent = self.flow.send(self._writing == ENDING)
        if sent == BLOCKED:
            self._wait()
        elif sent != NOTHING:
            if self._window_due != NEVER:
                self._window_due = NEVER
                self._set_deadline()
            if sent == LAST:
                self._writing = ENDED
                self._close_if_done()
            elif self.flow.unsent:
                if self.flow.may_send():
                    return True
                self._wait()
        return False

    def _wait(self) -> None:
        """Wait for the transport, which has a deadline of its own, or for the client to open a window."""
        channel = self.channel
        if self.flow.send_window > 0 or channel.writing_paused:
            channel.waiting[self] = None
        if not channel.writing_paused and self._window_due == NEVER:
            channel.took_some()
            self._await_window()

    # Waiting for the client, and closing.

    def deadline_passed(self) -> None:
        if self._window_due <= self.channel.seconds():
            if self.channel.took_some():
                self._await_window()
                return
            self.broken(StreamFault(Code.CANCEL, "The client opens no window."))
        else:
            self.broken(StreamFault(Code.CANCEL, "The request's body took too long.", 408))
        self.channel.flush()

    def _close_if_done(self) -> None:
        if self._writing == ENDED:
            if self._reading < HELD:
                # RFC 9113 §8.1: a complete answer before the end of the request; the client need not send the rest.
                self.reset(Code.NO_ERROR)
            else:
                self._close()

    def _close(self) -> None:
        if self._writing != CLOSED:
            self._writing = CLOSED
            self._reading = SHUT
            if self.deadline != NEVER:
                self._body_due = self._whole_due = self._window_due = NEVER
                self._set_deadline()
            self._held = None
            self.flow.clear()
            self._producer = None
            self.request = None
            self.channel.stream_closed(self)
