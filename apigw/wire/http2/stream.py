"""One stream of an HTTP/2 server connection, with flow control both ways. It is the ``Stream`` of a ``Request``.

A stream holds at most ``STREAM_WINDOW`` bytes of the body for a listener that has paused: the client gets new window
only as the listener reads. Bytes of the answer that the client's windows or the transport do not allow yet are held
too, and the producer is paused beyond ``UNSENT_HIGH``.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer

from apigw.wire.deadlines import NEVER
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.http2.bounds import STREAM_WINDOW, WORTHWHILE
from apigw.wire.http2.connection import Connection
from apigw.wire.http2.fields import check_trailers
from apigw.wire.http2.frames import (
    DATA,
    END_STREAM,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    Code,
    StreamFault,
    frame,
    reset_frame,
    window_frame,
)
from apigw.wire.http2.hpack import encode_head, encode_trailers
from apigw.wire.http2.patience import Patience
from apigw.wire.request import BODYLESS_STATUS, Request
from apigw.wire.tunnel import End

GIVE_BACK = STREAM_WINDOW // 4
"""Bytes. Smaller amounts of window are not given back."""
UNSENT_HIGH = 64 * 1024
UNSENT_LOW = 16 * 1024
CONTINUE = encode_head(100, [])


class HTTP2Stream(Patience):
    """Provides ``wire.request.Stream``."""

    receive_window = STREAM_WINDOW
    _last = b""  # the last byte of such a body, until END_STREAM
    _taken = 0  # bytes read whose window was not given back yet
    _body_paused = False
    _expects_continue = False
    _head: bytes | None = None
    _trailers: bytes | None = None
    _bodyless = False
    _ending = _ended = False  # END_STREAM is to be sent, and has been sent
    _producer: IPushProducer | None = None
    _producer_paused = False

    def __init__(self, channel: Connection, number: int, send_window: int, remote_open: bool) -> None:
        self.channel = channel
        self.transport: Any = channel.transport
        self.peer = channel.peer
        self.secure = channel.secure
        self.number = number
        self.send_window = send_window
        self.remote_open = remote_open
        self._held = bytearray()  # for a listener that is paused, or does not exist yet
        self._unsent = bytearray()

    # From the channel: frames of the client.

    def begin(self, request: Request, expects_continue: bool) -> None:
        """The fields made a request, whose exchange begins now."""
        self.request = request
        self._remaining = request.content_length
        self._expects_continue = expects_continue
        if self.remote_open:
            self._await_whole_body()

    def refuse(self, refusal: Refused, bodyless: bool) -> None:
        """Answer a malformed request."""
        status, headers, body = self.channel.factory.refuse(refusal, self.peer, self.secure, b"HTTP/2")
        self._head = encode_head(status, headers)
        if not bodyless:
            self._unsent += body
        self._ending = True
        self.flush()

    def data_received(self, data: bytes, length: int, end: bool) -> None:
        """A DATA frame. ``length``: bytes that count against the windows. Raises ``StreamFault``."""
        if not self.remote_open:
            raise StreamFault(Code.STREAM_CLOSED, "DATA on a stream that the client has ended.")
        self.remote_open = not end
        self.receive_window -= length
        if self.receive_window < 0:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "More DATA than the stream's window allows.")
        self._taken += length - len(data)
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
        if self._body_paused or not request.body_wanted:
            self._held += data
            return
        if not end and data:
            self._await_body()
            if self._is_slow(len(data)):
                self.broken(StreamFault(Code.CANCEL, "The request's body came too slowly.", 408))
                return
        self._deliver(request, data)

    def trailers_received(self, fields: Headers, size: int, end: bool) -> None:
        """``size``: as for ``Endpoint.block_received``. Raises ``StreamFault``."""
        if not self.remote_open:
            raise StreamFault(Code.STREAM_CLOSED, "HEADERS on a stream that the client has ended.")
        if not end:
            raise StreamFault(Code.PROTOCOL_ERROR, "Trailers that do not end the stream.")
        check_trailers(fields, size, self.channel.factory.settings)
        if self.request is not None and fields:
            self.request.trailers = fields
        self.data_received(b"", 0, True)

    def window_received(self, increment: int) -> None:
        """Raises ``StreamFault``."""
        if not increment:
            raise StreamFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE with an increment of 0.")
        self.widen(increment)
        if self.send_window > LARGEST_WINDOW:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "A window exceeds 2^31-1.")

    def widen(self, increment: int) -> None:
        """The client's window grows. It shrinks if a new setting is smaller (RFC 9113 §6.9.2)."""
        self.send_window += increment
        if self._head is None and self._unsent and self.send_window > 0:
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
        if not self.closed:
            self.channel.emit(reset_frame(self.number, code))
            if self.remote_open:
                self.channel.numbers.closed_early(self.number)
            self._close()

    # wire.request.Stream: what the exchange does with the body.

    def want_body(self, request: Request) -> None:
        expects, self._expects_continue = self._expects_continue, False
        if expects and self.remote_open and not request.started and not self._held:
            self.channel.emit_head(self.number, CONTINUE, False)
            self.channel.flush()

    def pause_body(self) -> None:
        if not self._body_paused:
            self._body_paused = True
            if self._pace is not None:
                self._pace.pause(self.channel.seconds())
            self._body_due = NEVER
            self._set_deadline()

    def resume_body(self) -> None:
        request = self.request
        if self.closed or request is None:
            return
        self._body_paused = False
        if self._pace is not None:
            self._pace.resume(self.channel.seconds())
        if self.remote_open:
            self._await_body()
        data, self._held = bytes(self._held), bytearray()
        self._deliver(request, data)
        self.channel.flush()

    def _deliver(self, request: Request, data: bytes) -> None:
        if data:
            self._taken += len(data)
            request.body_received(data)
            if self.closed or self._body_paused:
                return
        if not self.remote_open:
            if not request.body_complete:
                request.body_finished()
        elif self._taken >= GIVE_BACK:
            self.receive_window += self._taken
            self.channel.emit(window_frame(self.number, self._taken))
            self._taken = 0

    # wire.request.Stream: the response.

    def start_response(self, request: Request, status: int, reason: bytes, headers: Headers) -> None:
        self._bodyless = status in BODYLESS_STATUS or request.method == b"HEAD"
        self._head = encode_head(status, self.channel.factory.dates.dated(headers))

    def respond(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        self.start_response(request, status, reason, headers)
        self.send(body)
        self.end_response(request)

    def send(self, data: bytes) -> None:
        if self._bodyless or self.closed:
            return
        self._unsent += data
        if len(self._unsent) > UNSENT_HIGH:
            self.pause_producer()

    def flush(self) -> None:
        if self.closed:
            return
        channel = self.channel
        if self._head is not None:
            end = self._ending and not self._unsent and self._trailers is None
            channel.emit_head(self.number, self._head, end)
            self._head = None
            self._ended = end
            self._close_if_done()
        if self._unsent or self._ending:
            self._push_all()
        if self._body_due != NEVER and self.request is not None and self.request.is_stream:
            self._await_body()  # the answer has moved
        channel.flush()

    def end_response(self, request: Request, trailers: Headers | None = None) -> None:
        self._ending = True
        if trailers is not None and not self._bodyless:
            self._trailers = encode_trailers(trailers)
        self._producer = None
        self._held.clear()
        self._body_came()
        self.flush()

    def unsent(self) -> int:
        return len(self._unsent)

    def abort(self, code: int = Code.INTERNAL_ERROR) -> None:
        self.reset(Code(code))
        self.channel.flush()

    def set_producer(self, producer: IPushProducer | None) -> None:
        self._producer = producer
        self._producer_paused = False
        if self.channel.writing_paused or len(self._unsent) > UNSENT_HIGH:
            self.pause_producer()

    def pause_producer(self) -> None:
        if self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def resume_producer(self) -> None:
        """Resume the producer if there is room."""
        if self._producer_paused and len(self._unsent) <= UNSENT_LOW and not self.channel.writing_paused:
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
        if self._ended or self.closed:
            return False
        channel = self.channel
        unsent = self._unsent
        length = len(unsent)
        size = min(length, self.send_window, channel.send_window, LARGEST_FRAME)
        if length and (size <= 0 or channel.writing_paused):
            self._wait()
            return False
        last = self._ending and size == length
        if not (length or last):
            return False
        piece = bytes(unsent) if size == length else bytes(memoryview(unsent)[:size])
        del unsent[:size]
        self.send_window -= size
        channel.send_window -= size
        if size == length or size >= WORTHWHILE:
            channel.bounds.data_frames += 1
        ends = last and self._trailers is None
        if size or ends:
            channel.emit(frame(DATA, END_STREAM if ends else 0, self.number, piece))
        if last and self._trailers is not None:
            channel.emit_head(self.number, self._trailers, True)
        if self._window_due != NEVER:
            self._window_due = NEVER
            self._set_deadline()
        if last:
            self._ended = True
            self._close_if_done()
        elif unsent:
            if self.send_window > 0 and channel.send_window > 0 and not channel.writing_paused:
                return True
            self._wait()
        return False

    def _wait(self) -> None:
        """Wait for the transport, which has a deadline of its own, or for the client to open a window."""
        channel = self.channel
        if self.send_window > 0 or channel.writing_paused:
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
        if self._ended:
            if self.remote_open:
                # RFC 9113 §8.1: a complete answer before the end of the request; the client need not send the rest.
                self.reset(Code.NO_ERROR)
            else:
                self._close()

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self._body_due = self._whole_due = self._window_due = NEVER
            self._set_deadline()
            self._held.clear()
            self._unsent.clear()
            self._producer = None
            self.request = None
            self.channel.stream_closed(self)
